//! Every kernel that passes over maps once, on maps of common networks and on every instruction set: bytes that it must
//! read and write a second, and the share of a plain copy of as many bytes, measured right after.
//!
//! `cargo bench --bench maps -- pool` takes the kernels with that in their name.

#[allow(dead_code, reason = "convolutions have another limit")]
mod limit;
#[allow(dead_code, reason = "convolutions take layers")]
mod shapes;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shapes::numbers;
use sinew_kernels::activation::Activation;
use sinew_kernels::channels::{LrnArgs, SoftmaxArgs};
use sinew_kernels::conv::ConvGeometry;
use sinew_kernels::elementwise::{Addend, BinaryArgs, BinaryOp, Operand, ScaleArgs};
use sinew_kernels::isa::{Kernels, supported};
use sinew_kernels::layout::{PackArgs, PlainInput, UnpackArgs};
use sinew_kernels::plain::pool::PlainPoolArgs;
use sinew_kernels::plain::{PlainAddend, PlainGlobalArgs, PlainScaleArgs};
use sinew_kernels::pool::{PoolArgs, PoolKind};
use sinew_kernels::{Block, LANES};

/// A square map in blocks and row-major, a second one, and a number per channel.
struct Map {
    channels: usize,
    size: usize,
    input: Vec<Block>,
    other: Vec<Block>,
    gate: Vec<Block>,
    lanes: Vec<u8>,
}

impl Map {
    fn new([channels, size]: [usize; 2]) -> Self {
        assert!(channels.is_multiple_of(LANES), "whole blocks: one number of elements in both layouts");
        let blocks = |count: usize, scale| numbers(count * LANES, scale).as_chunks().0.to_vec();
        let planes = channels / LANES;
        Self {
            channels,
            size,
            input: blocks(planes * size * size, 1.0),
            other: blocks(planes * size * size, 2.0),
            gate: blocks(planes, 1.0),
            lanes: vec![LANES as u8; planes],
        }
    }

    fn plane(&self) -> usize {
        self.size * self.size
    }

    fn elements(&self) -> usize {
        self.channels * self.plane()
    }

    /// Windows of this size and stride, with a border of `pad` that keeps sizes even.
    fn windows(&self, kernel: usize, stride: usize, pad: usize) -> ConvGeometry {
        let out = (self.size + 2 * pad - kernel) / stride + 1;
        ConvGeometry {
            in_height: self.size,
            in_width: self.size,
            out_height: out,
            out_width: out,
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1, 1],
            pad_top: pad,
            pad_left: pad,
        }
    }
}

/// Times one kernel on one map. `elements` are those that it must read and write.
fn time(
    criterion: &mut Criterion,
    name: &str,
    map: &Map,
    elements: usize,
    run: &mut dyn FnMut(&'static Kernels, &mut [Block]),
) {
    let bytes = elements * size_of::<f32>();
    let mut group = criterion.benchmark_group(format!("{name}/{}@{}", map.channels, map.size));
    group.throughput(Throughput::Bytes(bytes as u64));
    // MaxMin has two halves
    let mut out = vec![[0.0; LANES]; 2 * map.input.len()];
    for table in supported() {
        let mut timed = false;
        group.bench_function(table.isa.name(), |bencher| {
            timed = true;
            bencher.iter(|| run(table, &mut out));
        });
        if timed {
            let speed = bytes as f64 / limit::fastest(|| run(table, &mut out));
            let share = speed / limit::bytes(table.isa, bytes);
            println!("{:50} {:.1} GB/s, {share:.2} of a copy\n", "", speed / 1e9);
        }
    }
    group.finish();
}

fn blocked(criterion: &mut Criterion) {
    for map in [[64, 112], [256, 56], [512, 28], [960, 7]].map(Map::new) {
        let (all, plane) = (map.elements(), map.plane());
        let add = BinaryArgs {
            op: BinaryOp::Add,
            left: Operand::Map(&map.input),
            right: Operand::Map(&map.other),
            plane,
            after: Activation::Relu,
        };
        time(criterion, "add_relu", &map, 3 * all, &mut |table, out| {
            (table.binary.run)(
                &add,
                0..plane,
                &mut out[..map.input.len()].chunks_mut(plane).collect::<Vec<_>>(),
            );
        });
        let scale = ScaleArgs {
            input: Some(&map.input),
            scale: &map.gate,
            addend: Addend::Map(&map.other),
            plane,
            after: Activation::Relu,
        };
        time(criterion, "scale_add_relu", &map, 3 * all, &mut |table, out| {
            (table.scale.run)(
                &scale,
                0..plane,
                &mut out[..map.input.len()].chunks_mut(plane).collect::<Vec<_>>(),
            );
        });
        for activation in [Activation::HardSwish, Activation::Sigmoid] {
            time(criterion, &format!("{activation:?}").to_lowercase(), &map, 2 * all, &mut |table, out| {
                (table.activate.run)(activation, &map.input, &mut out[..map.input.len()]);
            });
        }
        time(criterion, "maxmin", &map, 3 * all, &mut |table, out| {
            let (positive, negative) = out.split_at_mut(map.input.len());
            (table.maxmin.run)(&map.input, positive, negative);
        });
        time(criterion, "global_mean", &map, all, &mut |table, out| {
            let out = &mut out[..map.channels / LANES];
            (table.global_pool.run)(PoolKind::Average, map.size, &map.input, out);
        });
    }
}

fn pools(criterion: &mut Criterion) {
    for (name, kind, size, [kernel, stride, pad]) in [
        ("max3x3s2", PoolKind::Max, [64, 112], [3, 2, 1]),
        ("max2x2s2", PoolKind::Max, [64, 224], [2, 2, 0]),
        ("max2x2s1", PoolKind::Max, [64, 56], [2, 1, 0]),
        ("average3x3", PoolKind::Average, [256, 28], [3, 1, 1]),
        ("average7x7", PoolKind::Average, [256, 14], [7, 1, 3]),
    ] {
        let map = Map::new(size);
        let geometry = map.windows(kernel, stride, pad);
        let pixels = geometry.out_pixels();
        let outputs = map.channels * pixels;
        let args = PoolArgs { geometry, kind, input: &map.input };
        time(criterion, &format!("{name}_pool"), &map, map.elements() + outputs, &mut |table, out| {
            let out = &mut out[..outputs / LANES];
            (table.pool.run)(&args, 0..pixels, &mut out.chunks_mut(pixels).collect::<Vec<_>>());
        });
        if kind == PoolKind::Max {
            time(
                criterion,
                &format!("maxmin_{name}_pool"),
                &map,
                map.elements() + 2 * outputs,
                &mut |table, out| {
                    let out = &mut out[..2 * outputs / LANES];
                    (table.maxmin_pool.run)(
                        &args,
                        0..pixels,
                        &mut out.chunks_mut(pixels).collect::<Vec<_>>(),
                    );
                },
            );
        }
        let input = map.input.as_flattened();
        let args = PlainPoolArgs { geometry, kind, input };
        if sinew_kernels::plain::pool::supports(kind, geometry.kernel, geometry.stride, geometry.dilation) {
            time(
                criterion,
                &format!("{name}_plain_pool"),
                &map,
                map.elements() + outputs,
                &mut |table, out| {
                    let rows = 0..map.channels * geometry.out_height;
                    (table.plain_pool.run)(&args, rows, &mut out.as_flattened_mut()[..outputs]);
                },
            );
        }
    }
}

fn row_major(criterion: &mut Criterion) {
    for map in [[256, 56], [512, 28], [1024, 14], [2048, 7]].map(Map::new) {
        let (all, plane) = (map.elements(), map.plane());
        let (input, other) = (map.input.as_flattened(), map.other.as_flattened());
        time(criterion, "plain_global_mean", &map, all, &mut |table, out| {
            let args = PlainGlobalArgs { kind: PoolKind::Average, input, plane, width: map.size };
            (table.plain_global_pool.run)(&args, &mut out[..map.channels / LANES]);
        });
        time(criterion, "plain_scale_add_relu", &map, 3 * all, &mut |table, out| {
            let (scale, addend) = (map.gate.as_flattened(), PlainAddend::Map(other));
            let args = PlainScaleArgs { input, scale, addend, plane, after: Activation::Relu };
            (table.plain_scale.run)(&args, 0, &mut out.as_flattened_mut()[..all]);
        });
        let strides = [plane, map.size, 1];
        time(criterion, "pack", &map, 2 * all, &mut |table, out| {
            let input = PlainInput::F32(input);
            let args = PackArgs { input, strides, width: map.size, first_channel: 0, lanes: &map.lanes };
            let out = &mut out[..map.input.len()];
            (table.pack.run)(&args, 0..plane, &mut out.chunks_mut(plane).collect::<Vec<_>>());
        });
        time(criterion, "unpack", &map, 2 * all, &mut |table, out| {
            let args = UnpackArgs { input: &map.input, plane, strides, width: map.size, lanes: &map.lanes };
            (table.unpack.run)(&args, 0..plane, &mut out.as_flattened_mut()[..all]);
        });
    }
}

fn channels(criterion: &mut Criterion) {
    for map in [[1008, 1], [32, 128], [96, 27]].map(Map::new) {
        let pixels = 0..map.plane();
        time(criterion, "softmax", &map, 2 * map.elements(), &mut |table, out| {
            let args = SoftmaxArgs { input: &map.input, lanes: &map.lanes };
            (table.softmax.run)(&args, pixels.clone(), &mut out[..map.input.len()]);
        });
        time(criterion, "lrn", &map, 2 * map.elements(), &mut |table, out| {
            let (input, lanes) = (&map.input[..], &map.lanes[..]);
            let args = LrnArgs { input, lanes, size: 5, alpha: 1e-4, beta: 0.75, bias: 1.0 };
            (table.lrn.run)(&args, pixels.clone(), &mut out[..map.input.len()]);
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_millis(300)).warm_up_time(std::time::Duration::from_millis(50));
    targets = blocked, pools, row_major, channels
}
criterion_main!(benches);
