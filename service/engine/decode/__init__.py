"""From hidden states to lists: inputs of the decoder and the sampler, tables on the device, filters, new items."""
