"""The only code of the agent that talks to the kernel: netlink sockets, nft and sysctls."""
