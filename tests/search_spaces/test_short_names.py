"""Short names of layers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from search_spaces.short_names import short_names


def test_what_tells_layers_apart_is_left() -> None:
    names = [
        "/model.0/conv/Conv",
        "/model.22/cv3.0/cv3.0.1/conv/Conv",
        "/model.22/cv3.0/cv3.0.2/Conv",
        "/model.10/attn/MatMul_1",
    ]
    assert short_names(names) == ["model.0", "model.22.cv3.0.1", "model.22.cv3.0.2", "model.10.attn"]


def test_names_that_would_be_alike_keep_what_differs() -> None:
    names = ["/model.10/attn/MatMul", "/model.10/attn/MatMul_1", "/a/conv/Conv", "/a/Conv"]
    assert short_names(names) == ["model.10.attn.MatMul", "model.10.attn.MatMul_1", "a.conv", "a"]


def test_names_without_a_path_stay() -> None:
    assert short_names(["Conv_0", "Conv_12", "node_conv2d"]) == ["Conv_0", "Conv_12", "node_conv2d"]


@given(st.lists(st.text(alphabet="ab./C_1", min_size=1, max_size=9), unique=True, max_size=12))
def test_they_stay_different(names: list[str]) -> None:
    short = short_names(names)
    assert len(set(short)) == len(names) and all(short)
