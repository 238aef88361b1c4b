"""Random numbers: Philox as published, the distributions that ONNX asks for, and the same ones in every build."""

from __future__ import annotations

import numpy as np
from compiled import Net, compile_net

from nncc.instruments import Verify


def test_the_first_numbers_are_those_of_the_published_generator(tmp_path):
    net = Net(opset=17)
    net.output(net.op("RandomUniform", shape=[1], seed=0.0))
    # Random123's known answer for counter and key of zeros: 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
    assert compile_net(net, tmp_path).run({})[net.outputs[0]].tolist() == [(0xE169C58D >> 8) * 2.0**-24]


def test_distributions(tmp_path):
    net = Net(opset=17)
    size = 40_000
    x = net.input(size)
    net.output(net.op("RandomUniform", shape=[size], low=-1.0, high=3.0))
    net.output(net.op("RandomNormal", shape=[size], mean=2.0, scale=3.0))
    net.output(net.op("RandomUniformLike", x, dtype=11), net.op("RandomNormalLike", x, dtype=10))
    net.output(net.op("Bernoulli", x, dtype=6))
    uniform, normal, doubles, halves, coins = (
        compile_net(net, tmp_path).run({x: np.full(size, 0.3, np.float32)}).values()
    )
    assert doubles.dtype == np.float64 and halves.dtype == np.float16 and coins.dtype == np.int32
    assert uniform.min() >= -1 and uniform.max() < 3
    # Five standard errors of a mean, and of a standard deviation, of so many numbers.
    for values, mean, deviation in (
        (uniform, 1, 4 / 12**0.5), (normal, 2, 3), (doubles, 0.5, 12**-0.5), (halves, 0, 1), (coins, 0.3, 0.21**0.5),
    ):  # fmt: skip
        numbers = values.astype(np.float64)
        assert abs(numbers.mean() - mean) < 5 * deviation / size**0.5
        assert abs(numbers.std() - deviation) < 5 * deviation / size**0.5
    assert abs(np.corrcoef(uniform[:-1], uniform[1:])[0, 1]) < 5 / size**0.5


def test_classes_come_as_often_as_they_should(tmp_path):
    net = Net(opset=17)
    odds = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    x = net.input(2, 4)
    net.output(net.op("Multinomial", x, sample_size=20_000, dtype=7))
    (drawn,) = compile_net(net, tmp_path).run({x: np.log(odds * [[5], [0.01]]).astype(np.float32)}).values()
    found = np.stack([np.bincount(row, minlength=4) for row in drawn]) / 20_000
    assert np.all(np.abs(found - odds) < 5 * np.sqrt(odds * (1 - odds) / 20_000))


def test_nodes_differ_and_builds_do_not(tmp_path):
    def made(folder):
        net = Net(opset=17)
        for options in ({}, {}, {"seed": 1.0}, {"seed": 1.0}):
            net.output(net.op("RandomNormal", shape=[5], **options))
        compiled = compile_net(net, folder)
        assert {k: v.tolist() for k, v in compiled.run({}).items()} == {
            k: v.tolist() for k, v in compiled.run({}).items()
        }
        return [value.tolist() for value in compiled.run({}).values()]

    first, second, third, fourth = made(tmp_path / "a")
    assert first != second and third == fourth and first != third
    assert made(tmp_path / "b") == [first, second, third, fourth]


def test_random_models_are_not_compared_with_what_other_generators_make(tmp_path):
    from nncc.config import Config
    from nncc.pipeline import plan, run

    net = Net(opset=17)
    net.output(net.op("RandomNormal", shape=[3]))
    verify = Verify()
    net.save(tmp_path / "net.onnx")
    run(plan(tmp_path / "net.onnx", Config(target="native", until="simplify")), [verify])
    name = net.outputs[0]
    assert verify.skipped == f"the model has random numbers, of `{name}`, and ONNX Runtime makes others"
