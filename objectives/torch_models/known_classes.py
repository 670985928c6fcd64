"""What detectors of Ultralytics are made of, class by class, and the few functions that put tensors together.

Whatever is not here is refused by name. Left out on purpose are classes that act when they are made or used: those
that fetch weights (`TorchVision`, `DistillationModel`, text models), trainers, predictors and `AutoBackend`.
"""

from __future__ import annotations

import re


def _names(module: str, classes: str) -> set[str]:
    return {f"{module}.{name}" for name in classes.split()}


_LAYERS = {
    "activation": "AGLU",
    "block": (
        "A2C2f AAttn ABlock AConv ADown Attention BNContrastiveHead Bottleneck BottleneckCSP C1 C2 C2PSA C2f C2fAttn "
        "C2fCIB C2fPSA C3 C3Ghost C3TR C3f C3k C3k2 C3x CBFuse CBLinear CIB ContrastiveHead DFL ELAN1 GhostBottleneck "
        "HGBlock HGStem ImagePoolingAttn MaxSigmoidAttnBlock PSA PSABlock Proto Proto26 RealNVP RepBottleneck RepC3 "
        "RepCSP RepNCSPELAN4 RepVGGDW ResNetBlock ResNetLayer Residual SAVPE SCDown SPP SPPELAN SPPF Silence SwiGLUFFN"
    ),
    "conv": (
        "CBAM ChannelAttention Concat Conv Conv2 ConvTranspose DWConv DWConvTranspose2d Focus GhostConv Index "
        "LightConv RepConv SpatialAttention"
    ),
    "head": (
        "Classify Depth Detect LRPCHead OBB OBB26 Pose Pose26 RTDETRDecoder Segment Segment26 SemanticSegment "
        "WorldDetect YOLOEDetect YOLOESegment YOLOESegment26 v10Detect"
    ),
    "transformer": (
        "AIFI DeformableTransformerDecoder DeformableTransformerDecoderLayer LayerNorm2d MLP MLPBlock MSDeformAttn "
        "TransformerBlock TransformerEncoderLayer TransformerLayer"
    ),
}
_TORCH = {
    "activation": (
        "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish "
        "MultiheadAttention PReLU RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink "
        "Softsign Tanh Tanhshrink Threshold"
    ),
    "batchnorm": "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm",
    "container": "ModuleDict ModuleList ParameterDict ParameterList Sequential",
    "conv": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
    "dropout": "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d",
    "flatten": "Flatten Unflatten",
    "fold": "Fold Unfold",
    "instancenorm": "InstanceNorm1d InstanceNorm2d InstanceNorm3d",
    "linear": "Bilinear Identity Linear NonDynamicallyQuantizableLinear",
    "loss": "BCELoss BCEWithLogitsLoss CrossEntropyLoss KLDivLoss L1Loss MSELoss NLLLoss SmoothL1Loss",
    "normalization": "GroupNorm LayerNorm LocalResponseNorm RMSNorm",
    "padding": "ConstantPad2d ReflectionPad2d ReplicationPad2d ZeroPad2d",
    "pixelshuffle": "PixelShuffle PixelUnshuffle",
    "pooling": (
        "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveMaxPool1d AdaptiveMaxPool2d AvgPool1d AvgPool2d LPPool2d "
        "MaxPool1d MaxPool2d"
    ),
    "sparse": "Embedding",
    "transformer": "Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder TransformerEncoderLayer",
    "upsampling": "Upsample UpsamplingBilinear2d UpsamplingNearest2d",
}
_MODELS = (
    "ClassificationModel DepthModel DetectionModel OBBModel PoseModel RTDETRDetectionModel SegmentationModel "
    "SemanticSegmentationModel WorldModel YOLOEModel YOLOESegModel YOLOv10DetectionModel"
)
_LOSSES = (
    "BCEDiceLoss BboxLoss DFLoss DepthLoss26 E2EDetectLoss E2ELoss FocalLoss KeypointLoss MultiChannelDiceLoss "
    "PoseLoss26 RLELoss RotatedBboxLoss SegmentLoss26 SemanticSegmentationLoss TVPDetectLoss TVPSegmentLoss "
    "VarifocalLoss v10DetectLoss v8ClassificationLoss v8DetectionLoss v8OBBLoss v8PoseLoss v8SegmentationLoss"
)
_ASSIGNERS = "PoseTaskAlignedAssigner RotatedTaskAlignedAssigner SegTaskAlignedAssigner TaskAlignedAssigner"
_NAMESPACES = {"ultralytics.utils.IterableSimpleNamespace", "ultralytics.yolo.utils.IterableSimpleNamespace"}

#: Classes of which a pickle may make an empty instance and fill in its attributes; none of them is ever called.
MADE = frozenset().union(
    *(_names(f"torch.nn.modules.{module}", classes) for module, classes in _TORCH.items()),
    *(_names(f"ultralytics.nn.modules.{module}", classes) for module, classes in _LAYERS.items()),
    *(_names("ultralytics.nn.modules", classes) for classes in _LAYERS.values()),  # as before 8.0.100
    _names("ultralytics.nn.tasks", _MODELS),
    _names("ultralytics.utils.loss", _LOSSES),
    _names("ultralytics.utils.tal", _ASSIGNERS),
    _NAMESPACES,
)

#: What a pickle may call, besides `torch._utils._rebuild_tensor_v2`, each with what the ``repr`` of its arguments must
#: look like; None: they come from the file, and what is made of them is no larger.
CALLED: dict[str, re.Pattern[str] | None] = {
    "builtins.getattr": None,  # Ultralytics' loader hands out its own, for methods of modules
    "builtins.set": None,
    "builtins.frozenset": None,
    "collections.OrderedDict": None,
    "torch.Size": None,
    "torch.device": re.compile(r"\('(cpu|cuda|mps)'(, \d{1,3})?,?\)"),
    "torch._utils._rebuild_parameter": None,
    "torch._utils._rebuild_parameter_with_state": None,
    "_codecs.encode": re.compile(r"\(.*, 'latin1'\)", re.DOTALL),
    "numpy.dtype": re.compile(r"\('[<>=|]?[biufc](1|2|4|8)'(, (True|False|[01]))*,?\)"),
    "numpy.core.multiarray.scalar": None,
    "numpy._core.multiarray.scalar": None,
    **{f"{module}.{kind}Path": None for module in ("pathlib", "pathlib._local")
       for kind in ("Posix", "Windows")},
    **{name: re.compile(r"\(\)") for name in _NAMESPACES},
}  # fmt: skip

#: Bytes of an element, by the storage's class.
STORAGES = {
    "torch.BFloat16Storage": 2,
    "torch.BoolStorage": 1,
    "torch.ByteStorage": 1,
    "torch.CharStorage": 1,
    "torch.DoubleStorage": 8,
    "torch.FloatStorage": 4,
    "torch.HalfStorage": 2,
    "torch.IntStorage": 4,
    "torch.LongStorage": 8,
    "torch.ShortStorage": 2,
}
#: What is only ever named, never made or called: data types.
DTYPE = re.compile(r"torch\.(bool|b?float\d+|u?int\d+)")
