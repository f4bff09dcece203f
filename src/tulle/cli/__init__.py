"""A person's shell: one module a noun, loaded when its command is called. A client of the API server and the node agent."""
