"""CLGAN, a contrastive-learning GAN for unsupervised surface anomaly detection, and what is needed to measure it.

Arrows point one way: `tables`, `figures`, `widgets` -> `runs`, `training`, `detection`, `metrics` -> `clgan`, `model`
-> `networks`, `losses` and `data`, `synthetic`. Each module is one subject and opens with its source.

Zhang, Chen, Chen, Zhou, Zhang, "Unsupervised surface anomaly detection of industrial products based on a contrastive
learning generative adversarial network", Journal of Electronic Measurement and Instrumentation 37(10), 2023.
"""

__version__ = "0.1.0"
