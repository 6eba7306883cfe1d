//! Winograd convolution: every instruction set equals the scalar table bit for bit, whatever the weight form, the
//! scratch and the split; and the scalar table keeps the bound of `docs/winograd.md` against sums in f64.

#[path = "agreement_winograd/groups.rs"]
mod groups;
#[path = "agreement_winograd/pooled.rs"]
mod pooled;

use std::ops::Range;

use proptest::prelude::*;
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::winograd::{Groups, Reads, WeightForm, Winograd, WinogradTile};
use sinew_kernels::conv::{ConvArgs, ConvGeometry};
use sinew_kernels::epilogue::Epilogue;
use sinew_kernels::isa::{self, Isa};
use sinew_kernels::{Block, LANES};

const TILES: [WinogradTile; 6] = [tile(2, 3), tile(4, 3), tile(6, 3), tile(2, 5), tile(4, 5), STRIDED];

const STRIDED: WinogradTile = WinogradTile { output: 2, kernel: 3, stride: 2 };

const fn tile(output: usize, kernel: usize) -> WinogradTile {
    WinogradTile { output, kernel, stride: 1 }
}

/// Values that fill the mantissa, from -1 to 1.
struct Random(u64);

impl Random {
    fn value(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn blocks(&mut self, count: usize) -> Vec<Block> {
        (0..count).map(|_| std::array::from_fn(|_| self.value())).collect()
    }

    fn below(&mut self, end: usize) -> usize {
        ((f64::from(self.value()) + 1.0) / 2.0 * end as f64) as usize % end.max(1)
    }
}

/// One layer with its operands.
#[derive(Debug)]
struct Layer {
    geometry: ConvGeometry,
    tile: WinogradTile,
    lanes: Vec<u8>,
    input: Vec<Block>,
    plain: Vec<Block>,
    packed: Vec<Block>,
    bias: Vec<Block>,
    residual: Option<Vec<Block>>,
    residual_scale: Option<Vec<Block>>,
    before: Activation,
    after: Activation,
    max_min: bool,
}

impl Layer {
    fn new(
        tile: WinogradTile,
        (height, width): (usize, usize),
        pads: [usize; 4],
        lanes: &[u8],
        out_blocks: usize,
        seed: u64,
    ) -> Self {
        let WinogradTile { kernel: r, stride, .. } = tile;
        let geometry = ConvGeometry {
            in_height: height,
            in_width: width,
            out_height: (height + pads[0] + pads[1] - r) / stride + 1,
            out_width: (width + pads[2] + pads[3] - r) / stride + 1,
            kernel: [r, r],
            stride: [stride; 2],
            dilation: [1, 1],
            pad_top: pads[0],
            pad_left: pads[2],
        };
        let mut random = Random(seed | 1);
        let channels: usize = lanes.iter().map(|live| usize::from(*live)).sum();
        let mut input = random.blocks(lanes.len() * height * width);
        for (plane, live) in input.chunks_mut(height * width).zip(lanes) {
            for pixel in plane {
                pixel[usize::from(*live)..].fill(f32::NAN);
            }
        }
        let plain = random.blocks(out_blocks * channels * r * r);
        let mut packed = vec![[f32::NAN; LANES]; out_blocks * channels * tile.weights()];
        find(Isa::Scalar, tile).pack(lanes, &plain, &mut packed);
        let bias = random.blocks(out_blocks);
        Layer {
            geometry,
            tile,
            lanes: lanes.to_vec(),
            input,
            plain,
            packed,
            bias,
            residual: None,
            residual_scale: None,
            before: Activation::Identity,
            after: Activation::Identity,
            max_min: false,
        }
    }

    fn out_blocks(&self) -> usize {
        self.bias.len()
    }

    /// Runs output blocks `blocks` and output pixels `pixels` into `out`, which holds the planes of all blocks, with
    /// scratch for `count` tiles.
    fn run_part(
        &self,
        kernel: &Winograd,
        form: WeightForm,
        count: usize,
        blocks: Range<usize>,
        pixels: Range<usize>,
        out: &mut [Block],
    ) {
        let plane = self.geometry.out_pixels();
        let args = self.args(form, blocks.clone());
        let all = self.out_blocks();
        let mut slices: Vec<&mut [Block]> = out
            .chunks_mut(plane)
            .enumerate()
            .filter(|(index, _)| blocks.contains(&(index % all)))
            .map(|(_, plane)| &mut plane[pixels.clone()])
            .collect();
        let len = kernel.tile.scratch_of(form, count, self.lanes.len(), blocks.len(), false);
        let mut scratch = vec![[f32::NAN; LANES]; len];
        kernel.run(Reads { form, groups: Groups::ONE }, &args, pixels, &mut slices, &mut scratch);
    }

    /// What a run of output blocks `blocks` is given.
    fn args(&self, form: WeightForm, blocks: Range<usize>) -> ConvArgs<'_> {
        let plane = self.geometry.out_pixels();
        let weights = match form {
            WeightForm::Stored => &self.packed,
            WeightForm::Plain => &self.plain,
        };
        ConvArgs {
            geometry: self.geometry,
            lanes: &self.lanes,
            input: &self.input,
            weights: &weights[blocks.start * weights.len() / self.out_blocks()..],
            epilogue: Epilogue {
                scale: None,
                bias: &self.bias[blocks.start..],
                before: self.before,
                residual: self.residual.as_ref().map(|residual| &residual[blocks.start * plane..]),
                residual_scale: self.residual_scale.as_ref().map(|scale| &scale[blocks.start..]),
                after: self.after,
                max_min: self.max_min,
            },
        }
    }

    /// All of it, with a guard block after the last pixel.
    fn run(&self, kernel: &Winograd, form: WeightForm, count: usize) -> Vec<Block> {
        let pixels = self.geometry.out_pixels();
        let mut out = self.unwritten();
        let len = out.len() - 1;
        self.run_part(kernel, form, count, 0..self.out_blocks(), 0..pixels, &mut out[..len]);
        out
    }

    fn unwritten(&self) -> Vec<Block> {
        let slices = self.out_blocks() * if self.max_min { 2 } else { 1 };
        vec![[f32::NAN; LANES]; slices * self.geometry.out_pixels() + 1]
    }

    fn tiles(&self) -> usize {
        self.tile.tiles(self.geometry.out_height, self.geometry.out_width)
    }

    /// The definition, in f64, and the sums of magnitudes that the error bound is made of: for each output block,
    /// pixel and lane `(value, bound)`.
    fn reference(&self) -> Vec<[(f64, f64); LANES]> {
        let geometry = &self.geometry;
        let WinogradTile { kernel: r, output: m, stride } = self.tile;
        let of_kinds: Vec<_> = kinds(self.tile).map(|lacks| matrices(self.tile, lacks)).collect();
        let channels: usize = self.lanes.iter().map(|live| usize::from(*live)).sum();
        let constant =
            |lacks| bound_constant(self.tile, lacks) * (channels + 2) as f64 * f64::from(f32::EPSILON);
        let pixel = |block: usize, y: isize, x: isize, lane: usize| {
            let inside =
                (0..geometry.in_height as isize).contains(&y) && (0..geometry.in_width as isize).contains(&x);
            let at =
                || self.input[block * geometry.in_pixels() + y as usize * geometry.in_width + x as usize];
            if inside { f64::from(at()[lane]) } else { 0.0 }
        };
        // (weights of the output block, input block, live lanes, lane, first weight of the input block)
        let mut channel_list = Vec::new();
        let mut start = 0;
        for (block, live) in self.lanes.iter().map(|live| usize::from(*live)).enumerate() {
            channel_list.extend((0..live).map(|lane| (block, lane, live, start)));
            start += live * r * r;
        }
        let magnitudes = |[down, along]: [&Matrix; 2], rows: &Matrix| -> Matrix {
            // |down| |rows| |along'|
            let half: Matrix = down
                .iter()
                .map(|row| {
                    (0..rows[0].len())
                        .map(|c| row.iter().zip(rows).map(|(a, d)| (a * d[c]).abs()).sum())
                        .collect()
                })
                .collect();
            half.iter()
                .map(|half| {
                    along.iter().map(|row| row.iter().zip(half).map(|(a, d)| a.abs() * d).sum()).collect()
                })
                .collect()
        };
        let mut all = vec![[(0.0, 0.0); LANES]; self.out_blocks() * geometry.out_pixels()];
        for (block, lane) in
            (0..self.out_blocks()).flat_map(|block| (0..LANES).map(move |lane| (block, lane)))
        {
            let mut weights = Vec::new();
            for (_, in_lane, live, first) in &channel_list {
                let at = |ky: usize, kx: usize| {
                    let k = first + (ky * r + kx) * live + in_lane;
                    f64::from(self.plain[block * channels * r * r + k][lane])
                };
                weights.push((0..r).map(|ky| (0..r).map(|kx| at(ky, kx)).collect()).collect::<Matrix>());
            }
            for (y0, x0) in tiles_of(geometry, m) {
                let lacks =
                    [geometry.out_height - y0, geometry.out_width - x0].map(|left| lacking(self.tile, left));
                let [down, along] = lacks.map(|lacks| &of_kinds[lacks]);
                let constant = lacks.into_iter().map(constant).fold(0.0, f64::max);
                let mut sums = vec![vec![0.0; along.1.len()]; down.1.len()];
                for ((in_block, in_lane, ..), g) in channel_list.iter().zip(&weights) {
                    let u = magnitudes([&down.1, &along.1], g);
                    let y = |r: usize| (y0 * stride + r) as isize - geometry.pad_top as isize;
                    let x = |c: usize| (x0 * stride + c) as isize - geometry.pad_left as isize;
                    let pixel = |r: usize, c: usize| pixel(*in_block, y(r), x(c), *in_lane);
                    let row = |r: usize| (0..along.0[0].len()).map(|c| pixel(r, c)).collect();
                    let v = magnitudes([&down.0, &along.0], &(0..down.0[0].len()).map(row).collect());
                    for (sum, (u, v)) in
                        sums.iter_mut().flatten().zip(u.iter().flatten().zip(v.iter().flatten()))
                    {
                        *sum += u * v;
                    }
                }
                let bound = magnitudes([&down.2, &along.2], &sums);
                for y in y0..(y0 + m).min(geometry.out_height) {
                    for x in x0..(x0 + m).min(geometry.out_width) {
                        let mut value = 0.0;
                        for ((in_block, in_lane, ..), g) in channel_list.iter().zip(&weights) {
                            for (tap, g) in g.iter().flatten().enumerate() {
                                let y = (y * stride + tap / r) as isize - geometry.pad_top as isize;
                                let x = (x * stride + tap % r) as isize - geometry.pad_left as isize;
                                value += g * pixel(*in_block, y, x, *in_lane);
                            }
                        }
                        let at = block * geometry.out_pixels() + y * geometry.out_width + x;
                        all[at][lane] = (value, constant * bound[y - y0][x - x0]);
                    }
                }
            }
        }
        all
    }
}

fn tiles_of(geometry: &ConvGeometry, size: usize) -> Vec<(usize, usize)> {
    let (height, width) = (geometry.out_height, geometry.out_width);
    (0..height).step_by(size).flat_map(|y| (0..width).step_by(size).map(move |x| (y, x))).collect()
}

fn find(isa: Isa, tile: WinogradTile) -> &'static Winograd {
    let table = isa::table(isa).expect("the table is there");
    table.winograd.iter().find(|kernel| kernel.tile == tile).expect("every table has every tile")
}

type Matrix = Vec<Vec<f64>>;

/// Pairs of points that a tile lacks in a direction in which so many outputs are left: as many as there are two outputs less. With
/// stride 2 a tile of one output is a narrow one.
fn lacking(tile: WinogradTile, left: usize) -> usize {
    let unused = tile.output.saturating_sub(left);
    if tile.stride == 2 { unused } else { unused / 2 }
}

/// What tiles may lack, from none on.
fn kinds(tile: WinogradTile) -> std::ops::RangeInclusive<usize> {
    0..=lacking(tile, 1)
}

/// B', G and A' by the construction for any points: not the kernels' even and odd halves. With stride 2 by hand. Those of a
/// narrow tile have the weights of a whole one, without the last pairs of points; its A' is a difference, of which this is the sum of
/// the magnitudes, and so is its B' where there is one.
fn matrices(tile: WinogradTile, lacks: usize) -> (Matrix, Matrix, Matrix) {
    if tile == STRIDED {
        let of = |rows: &[&[i8]]| -> Matrix {
            rows.iter().map(|row| row.iter().copied().map(f64::from).collect()).collect()
        };
        if lacks > 0 {
            let weight: [&[i8]; 3] = [&[1, 0, 0], &[0, 0, 1], &[0, 1, 0]];
            return (of(&weight), of(&weight), of(&[&[1, 1, 1]]));
        }
        let input: [&[i8]; 5] =
            [&[1, 0, -1, 0, 0], &[0, 0, 1, 0, 0], &[0, 0, -1, 0, 1], &[0, 1, 0, 0, 0], &[0, 0, 0, 1, 0]];
        let weight: [&[i8]; 5] = [&[1, 0, 0], &[1, 0, 1], &[0, 0, 1], &[0, 1, 0], &[0, 1, 0]];
        return (of(&input), of(&weight), of(&[&[1, 1, 0, 1, 0], &[0, 1, 1, 0, 1]]));
    }
    let whole: &[f64] = match tile.domain() {
        4 => &[0.0, 1.0, -1.0],
        6 => &[0.0, 0.625, -0.625, 1.5, -1.5],
        _ => &[0.0, 0.5, -0.5, 2.0, -2.0, 1.0, -1.0],
    };
    let (points, left_out) = whole.split_at(whole.len() - 2 * lacks);
    let (t, outputs) = (points.len() + 1, points.len() + 2 - tile.kernel);
    // coefficients of prod (x - p) without the point `skip`
    let polynomial = |skip: usize| {
        let mut coefficients = vec![1.0];
        for (_, p) in points.iter().enumerate().filter(|(index, _)| *index != skip) {
            let mut next = vec![0.0; coefficients.len() + 1];
            for (k, a) in coefficients.iter().enumerate() {
                next[k + 1] += a;
                next[k] -= p * a;
            }
            coefficients = next;
        }
        coefficients.resize(t, 0.0);
        coefficients
    };
    let mut input: Matrix = (0..points.len()).map(polynomial).collect();
    input.push(polynomial(usize::MAX));
    let mut weight: Matrix = Vec::new();
    for (i, p) in points.iter().enumerate() {
        let scale: f64 = whole.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, q)| p - q).product();
        weight.push((0..tile.kernel as i32).map(|k| p.powi(k) / scale).collect());
    }
    weight.push((0..tile.kernel).map(|k| if k + 1 == tile.kernel { 1.0 } else { 0.0 }).collect());
    let scale = |p: f64| -> f64 { left_out.iter().step_by(2).map(|q| p * p + q * q).product() };
    if tile.domain() == 8 && lacks == 1 {
        // of a whole one, of which the third and the fourth input are zero and the two last ones have two addends
        let q = left_out[0];
        input = matrices(tile, 0)
            .0
            .iter()
            .enumerate()
            .filter(|(row, _)| !(5..7).contains(row))
            .map(|(_, row)| {
                let of = |i: usize| row[i].abs();
                let square = q * q;
                vec![
                    of(0) / square,
                    of(1) / square,
                    of(4) + square * of(6),
                    of(5) + square * of(7),
                    of(6),
                    of(7),
                ]
            })
            .collect();
    }
    let output = (0..outputs)
        .map(|k| {
            let last = if k + 1 == outputs { 1.0 } else { 0.0 };
            points.iter().map(|p| p.powi(k as i32) * scale(*p)).chain([last]).collect()
        })
        .collect();
    (input, weight, output)
}

/// The constant of the error bound, derived in `docs/winograd.md`.
fn bound_constant(tile: WinogradTile, lacks: usize) -> f64 {
    match (tile.output, tile.kernel, tile.stride) {
        (2, 3, 2) => 1.2,
        (4, 3, _) if lacks > 0 => 3.9,
        (6, 3, _) if lacks == 1 => 4.2,
        (4, 5, _) if lacks > 0 => 4.5,
        (2, 3, _) => 2.6,
        (4, 3, _) => 3.2,
        (6, 3, _) => 3.9,
        (2, 5, _) => 3.6,
        _ => 4.2,
    }
}

/// Asserts that the tables that the environment asks for are there.
fn require_tables() {
    let required = std::env::var("REQUIRE_ISA").unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        let isa = name.parse().expect("REQUIRE_ISA names instruction sets");
        assert!(isa::table(isa).is_some(), "this CPU lacks {name}");
    }
}

/// The live lanes of every written pixel are equal bit for bit, NaN being equal to NaN, and the guard is untouched.
fn assert_same(got: &[Block], want: &[Block], what: &str) {
    assert_eq!(got.len(), want.len());
    let bits = |value: f32| if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() };
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        for lane in 0..LANES {
            assert_eq!(
                bits(got[lane]),
                bits(want[lane]),
                "{what}: block {index}, lane {lane}: {} is not {}",
                got[lane],
                want[lane]
            );
        }
    }
}

/// Every table and both weight forms, in batches of `count` tiles, against the scalar table with all tiles at once.
fn agree(layer: &Layer, count: usize) {
    let want = layer.run(find(Isa::Scalar, layer.tile), WeightForm::Stored, layer.tiles());
    let pixels = want.len() - 1;
    assert!(want[pixels].iter().all(|lane| lane.is_nan()), "the guard block is untouched");
    for table in isa::supported() {
        let kernel = find(table.isa, layer.tile);
        let mut packed = vec![[f32::NAN; LANES]; layer.packed.len()];
        kernel.pack(&layer.lanes, &layer.plain, &mut packed);
        assert_same(&packed, &layer.packed, kernel.name);
        for form in [WeightForm::Stored, WeightForm::Plain] {
            let what = format!("{} {form:?} in batches of {count}", kernel.name);
            assert_same(&layer.run(kernel, form, count), &want, &what);
        }
    }
}

/// The layer on maps of other sizes: the same weights, other operands.
fn on_maps(layer: &Layer, sizes: &[(usize, usize)], seed: u64) -> Vec<Layer> {
    let tile = layer.tile;
    let mut maps = Vec::new();
    for (index, &(height, width)) in sizes.iter().enumerate() {
        let size = (height.max(tile.kernel), width.max(tile.kernel));
        let seed = seed.wrapping_add(index as u64);
        let mut map = Layer::new(tile, size, [1, 1, 2, 0], &layer.lanes, layer.out_blocks(), seed);
        let residual = || Random(seed | 4).blocks(layer.out_blocks() * map.geometry.out_pixels());
        map.residual = layer.residual.as_ref().map(|_| residual());
        map.residual_scale = layer.residual_scale.clone();
        (map.before, map.after) = (layer.before, layer.after);
        (map.plain, map.packed, map.bias) = (layer.plain.clone(), layer.packed.clone(), layer.bias.clone());
        maps.push(map);
    }
    maps
}

/// Every table and both weight forms on all maps at once, against the scalar table on each map.
fn maps_agree(maps: &[Layer], count: usize) {
    let tile = maps[0].tile;
    let want: Vec<_> =
        maps.iter().map(|map| map.run(find(Isa::Scalar, tile), WeightForm::Stored, map.tiles())).collect();
    let blocks = maps[0].out_blocks();
    for table in isa::supported() {
        let kernel = find(table.isa, tile);
        for form in [WeightForm::Stored, WeightForm::Plain] {
            let mut got: Vec<_> = maps.iter().map(Layer::unwritten).collect();
            let args: Vec<_> = maps.iter().map(|map| map.args(form, 0..blocks)).collect();
            let mut slices: Vec<_> = got
                .iter_mut()
                .map(|out| {
                    let len = out.len() - 1;
                    &mut out[..len]
                })
                .collect();
            let len = tile.scratch_of(form, count, maps[0].lanes.len(), blocks, false);
            kernel.run_maps(form, &args, &mut slices, &mut vec![[f32::NAN; LANES]; len]);
            for (index, (got, want)) in got.iter().zip(&want).enumerate() {
                let what = format!("{} {form:?}, map {index} in batches of {count}", kernel.name);
                assert_same(got, want, &what);
            }
        }
    }
}

fn activations() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::Identity),
        Just(Activation::Relu),
        Just(Activation::Clip { low: -0.5, high: 0.75 }),
        Just(Activation::HardSwish),
    ]
}

/// Some dozen cases natively; fewer where the environment says so.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 64 },
        ..default
    }
}

prop_compose! {
    fn layers()(
        tile in prop::sample::select(&TILES[..]),
        height in 1..16usize,
        width in 1..16usize,
        pads in prop::array::uniform4(0..3usize),
        lanes in prop::collection::vec(1..=16u8, 1..4),
        out_blocks in 1..7usize,
        has_residual in any::<bool>(),
        scaled in any::<bool>(),
        before in activations(),
        after in activations(),
        max_min in any::<bool>(),
        special in 0..6usize,
        seed in any::<u64>(),
    ) -> Layer {
        // a window must fit into the padded input
        let (height, width) = (height.max(tile.kernel), width.max(tile.kernel));
        let mut layer = Layer::new(tile, (height, width), pads, &lanes, out_blocks, seed);
        let mut random = Random(seed | 2);
        if has_residual {
            layer.residual = Some(random.blocks(out_blocks * layer.geometry.out_pixels()));
            layer.residual_scale = scaled.then(|| random.blocks(out_blocks));
            layer.before = before;
        }
        (layer.after, layer.max_min) = (after, max_min);
        let value = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, -f32::MAX];
        if special < 3 {
            for _ in 0..3 {
                let at = random.below(layer.input.len());
                layer.input[at][random.below(LANES)] = value[random.below(value.len())];
            }
        }
        layer
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn tables_and_forms_agree(layer in layers(), share in 0.0..1.0f64) {
        require_tables();
        agree(&layer, 1 + (share * layer.tiles() as f64) as usize);
    }

    #[test]
    fn maps_together_equal_each_by_itself(
        layer in layers(),
        sizes in prop::collection::vec((1..12usize, 1..12usize), 1..6),
        share in 0.0..1.0f64,
        seed in any::<u64>(),
    ) {
        require_tables();
        let maps = on_maps(&Layer { max_min: false, ..layer }, &sizes, seed);
        let tiles: usize = maps.iter().map(Layer::tiles).sum();
        maps_agree(&maps, 1 + (share * tiles as f64) as usize);
    }

    #[test]
    fn any_split_gives_the_same_bits(layer in layers(), count in 1..20usize, cuts in any::<u64>()) {
        let width = layer.geometry.out_width;
        let mut random = Random(cuts | 1);
        for table in isa::supported() {
            let kernel = find(table.isa, layer.tile);
            let want = layer.run(kernel, WeightForm::Stored, layer.tiles());
            let mut out = layer.unwritten();
            let len = out.len() - 1;
            let form = if cuts % 2 == 0 { WeightForm::Stored } else { WeightForm::Plain };
            let block = random.below(layer.out_blocks() + 1);
            for blocks in [0..block, block..layer.out_blocks()] {
                let rows = layer.geometry.out_height.div_ceil(layer.tile.output);
                let cut = random.below(rows + 1);
                let at = (cut * layer.tile.output * width).min(layer.geometry.out_pixels());
                for pixels in [0..at, at..layer.geometry.out_pixels()] {
                    layer.run_part(kernel, form, count, blocks.clone(), pixels, &mut out[..len]);
                }
            }
            assert_same(&out, &want, kernel.name);
        }
    }
}

/// The sizes that networks have, and those around a tile.
#[test]
fn usual_sizes_agree() {
    require_tables();
    for (tile, size) in [
        (tile(4, 3), 7),
        (tile(2, 3), 7),
        (tile(4, 3), 14),
        (tile(6, 3), 13),
        (tile(6, 3), 8),
        (tile(6, 3), 10),
        (tile(4, 5), 10),
        (tile(4, 3), 1),
        (tile(2, 5), 7),
        (tile(4, 5), 9),
        (STRIDED, 1),
        (STRIDED, 14),
        (STRIDED, 15),
    ] {
        let pad = tile.kernel / 2;
        let layer = Layer::new(tile, (size.max(tile.kernel), size), [pad; 4], &[16, 16, 5], 5, 77);
        for count in [1, 5, layer.tiles()] {
            agree(&layer, count);
        }
    }
}

/// More tiles than any register tile, more input blocks than one row of weights is made for at once.
#[test]
fn long_sums_agree() {
    for tile in TILES {
        agree(&Layer::new(tile, (12, 29), [1, 0, 2, 1], &[16, 16, 16, 16, 16, 7, 16], 2, 5), 23);
    }
}

/// So many channels that every table cuts the reduction of a position into chunks, where there are few tiles.
#[test]
fn reductions_in_chunks_agree() {
    let mut lanes = [16; 42];
    lanes[20] = 7;
    for (tile, size) in [(tile(2, 3), (10, 11)), (tile(4, 3), (10, 11)), (STRIDED, (17, 21))] {
        let layer = Layer::new(tile, size, [1; 4], &lanes, 5, 9);
        for count in [9, 24] {
            agree(&layer, count);
        }
    }
}

/// Four tiles at once, for which some tables transform weights in registers: maps with one input block and with many, dead lanes in
/// any of them, and parts of the output.
#[test]
fn four_tiles_agree() {
    let mut broken = [16; 11];
    (broken[5], broken[10]) = (9, 3);
    for (index, lanes) in
        [&[16; 1][..], &[5], &[16; 4], &[16; 5], &[16, 16, 16, 16, 7], &broken].iter().enumerate()
    {
        for (size, out_blocks) in [((5, 8), 1), ((8, 8), 5), ((7, 7), 4), ((6, 7), 3), ((1, 16), 2)] {
            let pads = if size.0 == 1 { [1, 1, 1, 1] } else { [1, 1, 0, 2] };
            let layer = Layer::new(tile(4, 3), size, pads, lanes, out_blocks, 77 + index as u64);
            assert_eq!(layer.tiles(), 4, "{size:?}");
            agree(&layer, 4);
        }
    }
    // More tiles, four or eight at a time, and maps of one tile each.
    for count in [4, 8] {
        agree(&Layer::new(tile(4, 3), (16, 8), [1; 4], &broken, 3, 5), count);
        agree(&Layer::new(tile(4, 3), (16, 15), [1; 4], &[16; 9], 5, 7), count);
    }
    let small = Layer::new(tile(4, 3), (4, 4), [1; 4], &[16; 6], 3, 6);
    maps_agree(&on_maps(&small, &[(4, 4), (3, 4), (4, 4), (4, 3)], 8), 4);
}

/// Maps of a megabyte, whose pixels are asked for ahead: of other tiles of the row, the next row and the next block, and beyond the
/// end.
#[test]
fn large_maps_agree() {
    for (tile, size) in
        [(tile(4, 3), (66, 131)), (tile(6, 3), (64, 130)), (tile(2, 3), (131, 66)), (STRIDED, (131, 130))]
    {
        let layer = Layer::new(tile, size, [1, 0, 1, 1], &[16, 3], 2, 11);
        assert!(layer.input.len() >= 1 << 14, "{size:?}");
        for count in [3, 40, layer.tiles()] {
            agree(&layer, count);
        }
        maps_agree(&on_maps(&layer, &[size, (7, 9), size], 12), 50);
    }
}

#[test]
fn errors_keep_the_derived_bound() {
    for tile in TILES {
        let mut worst = 0f64;
        let mut against_direct = 0f64;
        for (lanes, size) in [(&[3u8][..], 9), (&[16], 8), (&[16, 9], 11), (&[16, 1], 13)] {
            let pad = tile.kernel / 2;
            let mut layer = Layer::new(tile, (size, size + 1), [pad; 4], lanes, 1, 99 + size as u64);
            layer.bias.fill([0.0; LANES]);
            let out = layer.run(find(Isa::Scalar, layer.tile), WeightForm::Stored, layer.tiles());
            for (out, reference) in out.iter().zip(layer.reference()) {
                for (got, (want, bound)) in out.iter().zip(reference) {
                    let error = (f64::from(*got) - want).abs();
                    assert!(error <= bound, "{tile:?}: {got} is not {want} within {bound}");
                    worst = worst.max(error / bound);
                    against_direct = against_direct.max(error);
                }
            }
        }
        println!("{tile:?}: largest error {against_direct:.2e}, {worst:.4} of the bound");
        assert!(worst > 1e-4, "the reference is not rounded like the kernel");
    }
}

#[test]
fn error_factors_are_those_of_the_matrices() {
    for tile in TILES {
        let line = |lacks: usize| {
            let (input, weight, result) = matrices(tile, lacks);
            let sums: Vec<f64> = input.iter().map(|row| row.iter().map(|x| x.abs()).sum()).collect();
            // The transforms are separable: the largest over taps and outputs is that of one direction, squared.
            let of = |tap: usize, result: &[f64]| -> f64 {
                (0..sums.len()).map(|xi| (result[xi] * weight[xi][tap]).abs() * sums[xi]).sum()
            };
            let taps = 0..tile.kernel;
            taps.flat_map(|tap| result.iter().map(move |result| of(tap, result))).fold(0.0, f64::max)
        };
        let bound_of =
            |lacks, line: f64, channels| bound_constant(tile, lacks) * (channels + 2) as f64 * line;
        let line_of_whole = line(0);
        for lacks in kinds(tile).skip(1) {
            let line_of_narrow = line(lacks);
            println!("{tile:?}: {line_of_whole} and {line_of_narrow} of one that lacks {lacks}");
            let [narrow, whole] =
                [(lacks, line_of_narrow), (0, line_of_whole)].map(|(lacks, line)| bound_of(lacks, line, 1));
            assert!(narrow < whole, "{tile:?}: narrow tiles keep the bound of whole ones");
        }
        let line = line_of_whole;
        let channels = 64;
        let bound = bound_of(0, line * line, channels);
        let direct = (tile.kernel * tile.kernel * channels + 2) as f64;
        let factor = tile.error_factor(channels);
        assert!(factor <= bound / direct, "{tile:?}: {factor} is above the documented bound");
        // The documented constant is that of one channel, the largest: n / 6 there, n / 2 / (channels + 2) here.
        let roundings = 6.0 * bound_constant(tile, 0) + channels as f64 - 1.0;
        let near = roundings / 2.0 * line * line / direct;
        assert!((factor / near - 1.0).abs() < 0.03, "{tile:?}: {factor} is not {near}");
    }
}
