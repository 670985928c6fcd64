"""What is computed of detections: COCO mAP, agreement with a reference, bootstrap intervals."""
