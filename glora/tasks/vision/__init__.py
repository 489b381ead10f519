"""Tasks on images: lists, transforms, corruptions and pretrained vision transformers."""
