"""CLGAN, a contrastive-learning GAN for unsupervised surface anomaly detection, and what is needed to measure it.

Images come in through `data`, `datasets` and `augment`. The paper's networks and equations are `layers`, `networks`,
`losses` and `clgan`; `model` is the contract that every method keeps. `training` and `checkpoint` train a model;
`detection`, `metrics` and `ranking` measure it. Each package beside these modules opens with what it is for and what it
may import.

Imports run one way: `lab`, `exhibits`, `interop` -> `runs` -> `clgan`, `restoring`, `training`, `detection`, `metrics` ->
`networks`, `losses`, `model`, `data` -> `layers`, `paths`.

Zhang, Chen, Chen, Zhou, Zhang, "Unsupervised surface anomaly detection of industrial products based on a contrastive
learning generative adversarial network", Journal of Electronic Measurement and Instrumentation 37(10), 2023.
"""
