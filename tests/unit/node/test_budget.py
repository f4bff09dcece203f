"""What an Envoy may use up, from what a machine says."""

from __future__ import annotations

from pathlib import Path

from tulle.node.budget import budget, heap_of, memory

MB, GB = 1 << 20, 1 << 30


def machine(tmp_path: Path, group: str, limits: dict[str, str]) -> int:
    """The memory of a machine of 8 GB, in that control group, where these files are."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:        8388608 kB\nMemFree:          100 kB\n")
    (proc / "self/cgroup").write_text(group)
    for name, text in limits.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    return memory(proc, groups)


def test_the_least_limit_counts(tmp_path: Path) -> None:
    """Broken: a container's Envoys would count on the host's memory, and be killed by the kernel with all that is under way."""
    limits = {"a/memory.max": "1073741824\n", "a/b/memory.max": "max\n", "memory.max": "max\n"}
    assert machine(tmp_path / "2", "0::/a/b\n", limits) == GB, "of a group above its own"
    assert machine(tmp_path / "0", "0::/elsewhere\n", {}) == 8 * GB
    first = {"memory/x/memory.limit_in_bytes": str(GB // 2), "memory/memory.limit_in_bytes": "9223372036854771712"}
    assert machine(tmp_path / "1", "5:cpu:/x\n4:memory:/x\n0::/\n", first) == GB // 2


def test_shares() -> None:
    """Broken: a small machine's Envoy could take all of it, a large one's would refuse work that there is room for."""
    assert [heap_of(it) // MB for it in (256 * MB, GB, 8 * GB, 256 * GB)] == [128, 256, 2048, 4096]
    assert budget(100).heap_bytes == 100 * MB, "the operator's word"
    assert 100 <= budget().connections <= 100_000
