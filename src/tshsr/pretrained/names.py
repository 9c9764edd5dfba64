"""Short names of pretrained networks, and their names on the Hugging Face hub."""

VISION_WEIGHTS = {
    "clip": "openai/clip-vit-base-patch16",
    "siglip2": "google/siglip2-base-patch16-224",
    "dinov2": "facebook/dinov2-base",
    "dinov3": "facebook/dinov3-vitb16-pretrain-lvd1689m",
}
"""Vision networks."""
