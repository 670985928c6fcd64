"""Images and labels: COCO and YOLO layouts, calibration lists, letterbox, the cache of pixels."""
