"""Attacks on a hub, with honest clients beside them. `rig` has the parts that they share."""
