// Run by test_page_files.py with the folder of the modules.
import assert from "node:assert";
const { compiled } = await import(`file://${process.argv[2]}/expression.mjs`);
const { diff, around } = await import(`file://${process.argv[2]}/diff.mjs`);
const { layout, NODE } = await import(`file://${process.argv[2]}/layout.mjs`);
const node = (id, more = {}) => ({ id, name: id.split("/")[1], namespace: id.split("/")[0], figures: { rate: 2, success: 0.5, p99: 700, secured: 1 }, ...more });

const one = node("shop/cart", { health: "failing" }), other = node("default/reviews", { figures: { rate: 0.1, success: 1, p99: 5, secured: 0 } });
const finds = (text) => [one, other].filter(compiled(text)).map((each) => each.name).join(" ");
assert.equal(compiled("  "), null);
assert.equal(finds("car"), "cart");
assert.equal(finds("ns=shop health=failing"), "cart");
assert.equal(finds("!ns=shop"), "reviews");
assert.equal(finds("error>40 or rate<1"), "cart reviews");
assert.equal(finds("not mtls=100"), "reviews");
assert.throws(() => compiled("colour=red"), /found colour/);
assert.throws(() => compiled("p99>quick"), /needed a number/);
assert.throws(() => compiled("a or"), /needed a condition/);

assert.deepEqual(diff("a\nb\nc", "a\nx\nc"), [["same", "a"], ["removed", "b"], ["added", "x"], ["same", "c"]]);
assert.deepEqual(around(diff("a", "a")), []);

const nodes = [node("a/one"), node("a/two"), node("b/three"), node("a/lonely")];
const links = [["a/one", "a/two"], ["a/two", "b/three"], ["b/three", "a/one"]].map(([source, target]) => ({ source, target }));
const drawn = layout(nodes, links);
const at = (id) => drawn.places.get(id);
assert.ok(at("a/one").x < at("a/two").x && at("a/two").x < at("b/three").x, "a circle is cut where calls begin");
assert.deepEqual(drawn.boxes.map((box) => box.namespace), ["a", "b"]);
assert.ok(drawn.boxes[0].y + drawn.boxes[0].height <= drawn.boxes[1].y, "boxes do not overlap");
const places = [...drawn.places.values()];
for (const p of places) for (const q of places) assert.ok(p === q || Math.abs(p.x - q.x) >= NODE.width || Math.abs(p.y - q.y) >= NODE.height, "nor do nodes");

const { parsed, sum, within, losses } = await import(`file://${process.argv[2]}/health.mjs`);
const said = parsed('# HELP x y\nt_bucket{op="w",le="0.1"} 98\nt_bucket{op="w",le="1"} 99\nt_bucket{op="w",le="+Inf"} 100\npilot_total_xds_rejects 2\ntulle_spans_dropped_total 0\n');
assert.equal(within(said, "t", 0.5, 'op="w"'), 0.1);
assert.equal(within(said, "t", 0.99), 1);
assert.equal(within(said, "t", 0.999), Infinity);
assert.equal(within(said, "none", 0.5), null);
assert.equal(sum(said, "pilot_total_xds_rejects"), 2);
assert.deepEqual(losses(said).map((one) => one.name), ["pilot_total_xds_rejects"], "what is 0 is not said");
