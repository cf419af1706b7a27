"""A picture learned by three networks, the best activation as a pipeline, and its Verilog.

A sine, a sine of the quadratic activation's gain, and the quadratic activation learn the same small picture; then the
quadratic one runs in the fixed point of a chip.

    python examples/quad_inr.py
"""

import torch

from cimphony import hardware
from cimphony.methods import quad_inr


def picture(size: int = 32) -> torch.Tensor:
    """Rings on a slope, [size, size, 1], 0 to 1; with scikit-image: cimphony.papers.pictures.load_picture("camera")."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    return (0.5 + 0.2 * torch.sin(25 * (x * x + y * y)) + 0.2 * x * y)[..., None]


def main() -> None:
    signal = picture()
    print("PSNR in dB after 50, 100, 150 and 200 steps, learning rate 1e-3 for all")
    for kind in ("siren", "sine_matched", "quad"):
        network = quad_inr.Inr(kind, width=24)
        result = quad_inr.fit(network, signal, steps=200, every=50)
        spectrum = quad_inr.tangent_spectrum(quad_inr.Inr(kind, axes=1, width=32, hidden=1), quad_inr.grid(64))
        curve = " ".join(f"{value:6.2f}" for value in result.psnr.values())
        print(f"{kind:14}{curve}   effective rank of the tangent kernel {spectrum.effective_rank:5.1f} of 64")

    points = quad_inr.grid(32, 32)
    network.activation = quad_inr.fixed_point(hardware.quad())
    fixed = (network(points).detach().clamp(-1, 1) + 1).view_as(signal) / 2
    print(f"{'in fixed point':14}{quad_inr.psnr(fixed, signal):27.2f}")

    for name, (make, _, bound) in hardware.ACTIVATIONS.items():
        pipeline = make()
        multipliers = sum(len(stage["multipliers"]) for stage in pipeline.resources())
        registers = sum(stage["registers"] for stage in pipeline.resources())
        print(
            f"{name:8}{pipeline.latency:3} cycles, {multipliers} multipliers, {registers:4} register bits, "
            f"error up to {bound:g} units of the last place"
        )
    print(hardware.module(hardware.quad()))


if __name__ == "__main__":
    main()
