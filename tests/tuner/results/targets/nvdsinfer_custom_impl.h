// The declarations of DeepStream's header that a parser uses, as NVIDIA's API reference lists them, to compile one here.
#pragma once
#include <vector>
enum NvDsInferDataType { FLOAT = 0, HALF = 1, INT8 = 2, INT32 = 3 };
struct NvDsInferDims { unsigned int numDims; unsigned int d[8]; unsigned int numElements; };
struct NvDsInferLayerInfo {
  NvDsInferDataType dataType;
  union { NvDsInferDims inferDims; NvDsInferDims dims; };
  int bindingIndex;
  const char* layerName;
  void* buffer;
  int isInput;
};
struct NvDsInferNetworkInfo { unsigned int width, height, channels; };
struct NvDsInferParseDetectionParams {
  unsigned int numClassesConfigured;
  std::vector<float> perClassPreclusterThreshold;
  std::vector<float> perClassPostclusterThreshold;
};
struct NvDsInferParseObjectInfo {
  unsigned int classId;
  float left, top, width, height, detectionConfidence;
};
typedef bool (*NvDsInferParseCustomFunc)(std::vector<NvDsInferLayerInfo> const&, NvDsInferNetworkInfo const&,
                                         NvDsInferParseDetectionParams const&, std::vector<NvDsInferParseObjectInfo>&);
#define CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(name) \
  [[maybe_unused]] static void check_##name(NvDsInferParseCustomFunc function = name) { (void)function; }
