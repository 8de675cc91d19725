"""Pure rendering: items of desired state become the entries the kernel and DNS should hold."""
