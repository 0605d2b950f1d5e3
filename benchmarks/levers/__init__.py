"""What each of five levers is worth to a small model: one switched off at a time, everything else equal."""
