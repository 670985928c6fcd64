import onnx
import pytest
from scene_detectors import plugin_detector, scene_detector

from search_spaces.model_graph import ModelGraph
from search_spaces.plugins import PLUGIN_DOMAIN, name_plugins, plugins, refusal, without_plugins


@pytest.mark.parametrize("domain", ["TRT", "", "mmdeploy"])
def test_plugins_are_named_and_their_domains_imported(tmp_path, domain):
    model = onnx.load(plugin_detector(tmp_path / "m.onnx", domain=domain))
    del model.opset_import[1:]
    name_plugins(model)
    assert plugins(model) == ("EfficientNMS_TRT",)
    assert {entry.domain for entry in model.opset_import} == {"", domain or PLUGIN_DOMAIN}
    onnx.checker.check_model(model)
    assert refusal(model, "It") == (
        "holds EfficientNMS_TRT, which It does not have; export without NMS, or run it on TensorRT"
    )


def test_what_is_cut_ends_in_the_plugins_inputs(tmp_path):
    graph = ModelGraph(plugin_detector(tmp_path / "m.onnx"))
    cut = without_plugins(graph.model)
    node = graph.producer["num_dets"]
    assert [output.name for output in cut.graph.output] == list(node.input)
    assert len(cut.graph.node) == len(graph.model.graph.node) - 1
    onnx.checker.check_model(cut, full_check=True)


def test_a_model_without_plugins_stays_as_it_is(tmp_path):
    graph = ModelGraph(scene_detector(tmp_path / "m.onnx", "divided"))
    assert without_plugins(graph.model) is graph.model
    assert (plugins(graph.model), refusal(graph.model, "It")) == ((), "")
