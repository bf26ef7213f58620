"""What turns a history into a hidden state: GPT4Rec's streaming backbone, and the encoders it is compared with."""
