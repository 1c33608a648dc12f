"""Small pictures inside a page."""

import base64
import io

import numpy as np
from PIL import Image

JPEG_QUALITY = 70


def jpeg_data_uri(frame: np.ndarray) -> str:
    """Return a frame, uint8 `(height, width, 3)`, as the `data:` address of a JPEG: an `<img>`'s `src`."""
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
