#!/usr/bin/env python3
"""Prints deliveries.csv: 3,000 invented deliveries.

One of x km takes 10 + 3x minutes, and a delay that grows with the distance:
exponentially distributed, with a mean of 1 + x / 2 minutes.
"""

import random

rng = random.Random(0)
print("kilometres,minutes")
for _ in range(3000):
    x = round(rng.uniform(0, 8), 2)
    print(f"{x:.2f},{10 + 3 * x + rng.expovariate(1 / (1 + x / 2)):.2f}")
