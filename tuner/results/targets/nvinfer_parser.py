"""Source of the library that reads a head's boxes for DeepStream's nvinfer.

Its types are those of DeepStream's ``nvdsinfer_custom_impl.h``, which comes with the SDK.
"""

from __future__ import annotations

import string
from string import Template

from objectives.tasks.detection.heads.layout import BoxLayout

#: What the configuration names.
FUNCTION, SOURCE, LIBRARY = "NvDsInferParseTuner", "nvdsinfer_tuner.cpp", "libnvdsinfer_tuner.so"

#: The line that makes the library where DeepStream is installed.
COMPILE = (
    "g++ -O2 -shared -fPIC -I/opt/nvidia/deepstream/deepstream/sources/includes -I/usr/local/cuda/include "
    f"{SOURCE} -o {LIBRARY}"
)

_PLAIN = string.ascii_letters + string.digits + "_/.:- "

_SOURCE = Template(
    """\
// Reads the boxes of one model for DeepStream's nvinfer. Written by tuner for the layout of that model's output:
// change nothing here without exporting again.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "nvdsinfer_custom_impl.h"

namespace {
const char OUTPUT[] = "$output";
constexpr unsigned CLASSES = $classes;
constexpr bool BOXES_LAST = $boxes_last;  // (columns, boxes), else (boxes, columns)
constexpr bool CORNERS = $corners;        // x1, y1, x2, y2, else centre x, y, width, height
constexpr bool SELECTED = $selected;      // then score and class, else a probability for each class
constexpr bool OBJECTNESS = $objectness;  // by which class probabilities are multiplied
constexpr bool NORMALISED = $normalised;  // boxes are shares of the input, else its pixels
}  // namespace

extern "C" bool $function(std::vector<NvDsInferLayerInfo> const& layers, NvDsInferNetworkInfo const& network,
                                    NvDsInferParseDetectionParams const& params,
                                    std::vector<NvDsInferParseObjectInfo>& objects) {
  const NvDsInferLayerInfo* layer = nullptr;
  for (auto const& each : layers)
    if (std::strcmp(each.layerName, OUTPUT) == 0) layer = &each;
  const unsigned wanted = SELECTED ? 6 : 4 + OBJECTNESS + CLASSES;
  if (!layer || layer->dataType != FLOAT || layer->inferDims.numDims != 2 ||
      layer->inferDims.d[BOXES_LAST ? 0 : 1] != wanted) {
    std::fprintf(stderr, "tuner: output %s is missing, not float32, or not of %u columns\\n", OUTPUT, wanted);
    return false;
  }
  const unsigned boxes = layer->inferDims.d[BOXES_LAST ? 1 : 0];
  const float* data = static_cast<const float*>(layer->buffer);
  const auto at = [&](unsigned box, unsigned column) {
    return BOXES_LAST ? data[column * boxes + box] : data[box * wanted + column];
  };
  const float wide = NORMALISED ? network.width : 1, high = NORMALISED ? network.height : 1;
  for (unsigned box = 0; box < boxes; ++box) {
    float x1 = at(box, 0) * wide, y1 = at(box, 1) * high, x2 = at(box, 2) * wide, y2 = at(box, 3) * high;
    if (!CORNERS) {
      const float x = x1, y = y1, w = x2, h = y2;
      x1 = x - w / 2, y1 = y - h / 2, x2 = x + w / 2, y2 = y + h / 2;
    }
    if (!std::isfinite(x1 + y1 + x2 + y2)) continue;
    x1 = std::clamp(x1, 0.f, float(network.width)), x2 = std::clamp(x2, 0.f, float(network.width));
    y1 = std::clamp(y1, 0.f, float(network.height)), y2 = std::clamp(y2, 0.f, float(network.height));
    if (x2 <= x1 || y2 <= y1) continue;
    const auto keep = [&](unsigned label, float score) {
      if (label >= params.perClassPreclusterThreshold.size() || !(score >= params.perClassPreclusterThreshold[label]))
        return;
      NvDsInferParseObjectInfo object{};
      object.classId = label, object.detectionConfidence = score;
      object.left = x1, object.top = y1, object.width = x2 - x1, object.height = y2 - y1;
      objects.push_back(object);
    };
    if (SELECTED) {
      if (at(box, 5) >= 0) keep(unsigned(at(box, 5)), at(box, 4));
    } else {
      for (unsigned label = 0; label < CLASSES; ++label)
        keep(label, at(box, 4 + OBJECTNESS + label) * (OBJECTNESS ? at(box, 4) : 1.f));
    }
  }
  return true;
}

CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE($function);
"""
)


def parser_source(layout: BoxLayout, classes: int) -> str:
    """Returns the C++ of a parser.

    Args:
        layout: Of the model's output.
        classes: Their number.
    """
    flags = ("boxes_last", "corners", "selected", "objectness", "normalised")
    text = {flag: "true" if getattr(layout, flag) else "false" for flag in flags}
    octal = (chr(b) if chr(b) in _PLAIN else f"\\{b:03o}" for b in layout.output.encode())
    return _SOURCE.substitute(text, output="".join(octal), classes=classes, function=FUNCTION)
