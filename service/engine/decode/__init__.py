"""Lists from hidden states: the decoder's and the sampler's inputs, tables on the device, filters, waiting items."""
