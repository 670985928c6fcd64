"""tuner doctor on this machine, whatever it has."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from objectives.devices.cpu import cpu_flags, describe_int8
from objectives.runtimes.tensorrt.findings import tensorrt_formats
from tuner.cli.doctor import diagnose


def test_finds_what_a_run_needs(tmp_path: Path) -> None:
    checks = {check.name: check for check in diagnose(tmp_path)}
    for name in ("python", "onnxruntime", "sqlite"):
        assert checks[name].required and checks[name].ok, checks[name]
    assert {"cores", "int8 instructions", "memory", "disk", "gpu", "tensorrt", "torch"} <= set(checks)
    assert "CPU" in checks["onnxruntime"].detail
    assert "wal" in checks["sqlite"].detail
    assert list(tmp_path.iterdir()) == []


def test_every_finding_is_one_line_with_a_remedy_where_something_lacks() -> None:
    for check in diagnose():
        assert check.detail and "\n" not in check.detail + check.remedy
        assert check.ok or check.remedy, check


def test_a_missing_folder_is_a_finding_not_a_crash(tmp_path: Path) -> None:
    checks = {check.name: check for check in diagnose(tmp_path / "absent")}
    assert not checks["sqlite"].ok and not checks["disk"].ok


def test_two_runtimes_at_once_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        info = tmp_path / f"{name.replace('-', '_')}-9.9.9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9.9\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    check = next(check for check in diagnose() if check.name == "onnxruntime")
    assert not check.ok
    assert "onnxruntime 9.9.9 and onnxruntime-gpu 9.9.9" in check.detail
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in check.remedy


@pytest.mark.parametrize(
    ("text", "fast", "word"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni\n", True, "AVX-512 VNNI"),
        ("flags : avx2 avx_vnni amx_int8", True, "AMX"),
        ("flags : avx2", False, "without VNNI"),
        ("Features : fp asimd asimddp", True, "Arm dot product"),
        ("processor : 0\n", False, "not readable"),
    ],
)
def test_int8_instructions(text: str, fast: bool, word: str) -> None:
    found, detail = describe_int8(cpu_flags(text))
    assert found is fast and word in detail


def test_tensorrt_formats() -> None:
    old = tensorrt_formats("8.6.1", (9, 0))
    assert old.startswith("computes in fp16, int8; stores w8a16, w4a16, nvfp4; fp8 needs TensorRT >= 10")
    assert "(this is 8.6.1)" in old
    assert "fp8" in tensorrt_formats("10.9.0.34", (9, 0)).split(";")[0]
    assert "fp8 needs sm_89 or newer (this is sm_80)" in tensorrt_formats("10.9.0.34", (8, 0))
    assert tensorrt_formats("10.9.0.34", None).endswith("as far as the GPU has the kernels")
