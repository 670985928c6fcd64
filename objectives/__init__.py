"""What a choice costs: accuracy, latency and size of one allocation on one runtime."""

import os

#: The largest picture that OpenCV decodes, pixels; it reads these when it is imported. Three bytes a pixel, and as much
#: again for a picture that is turned, stay below 1 GiB. Without them a PNG of 100 kB takes 3 GB.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**27))
#: A picture that cannot be read is told of once, by us.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
