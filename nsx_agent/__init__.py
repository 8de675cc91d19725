"""The network agent: learns desired state over MQTT and programs the host kernel."""
