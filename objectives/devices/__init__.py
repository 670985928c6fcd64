"""The devices of this machine: what they are, who may use them, what state they are in."""
