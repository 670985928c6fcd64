"""How the study's bounds reach the measurement."""

from collections.abc import Callable
from pathlib import Path

from objectives.runtimes.registry import default_runtime, open_runtime, parse_settings
from tuner.prepare.evaluators import timing_protocol
from tuner.study.config import TimingSection
from tuner.study.identity import identity
from tuner.study.study_file import read_study, write_study


def test_only_a_bound_that_the_user_set_may_fail_a_trial() -> None:
    for runtime, bound in (("onnxruntime-cpu", 0.15), ("tensorrt", 0.025)):
        default = timing_protocol(TimingSection(), open_runtime(parse_settings({"name": runtime})))
        assert (default.max_cov, default.strict) == (bound, False)
    set_here = timing_protocol(TimingSection(max_cov=0.15), default_runtime())
    assert (set_here.max_cov, set_here.strict) == (0.15, True)


def test_a_run_keeps_whose_bound_it_is_and_older_runs_still_compare(
    study_file: Callable[..., Path], tmp_path: Path
) -> None:
    for name, sections in (("open", {}), ("set", {"timing": {"max_cov": 0.15}})):
        config = read_study(study_file(**sections))
        kept = tmp_path / name / "study.yaml"
        kept.parent.mkdir()
        kept.write_text(write_study(config, kept.parent))
        assert timing_protocol(read_study(kept).timing, default_runtime()).strict == (name == "set")
        fields = {key for key in identity(config, digests={}) if key.startswith("timing.")}
        names = ("warmup_ms", "min_seconds", "min_iterations", "max_cov", "attempts")
        assert fields == {f"timing.{field}" for field in names}
