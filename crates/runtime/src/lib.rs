//! Devices, memory and streams: the driver trait and what runs over it.
