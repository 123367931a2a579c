"""The rivals of Table 3 and the controls without learning. They import clgan_lib, never the other way round."""
