"""AWAC: offline learning that goes on online, and a problem of minutes that tells methods apart."""
