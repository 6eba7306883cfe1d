//! Winograd: where it pays, and with which tile. The rules follow `docs/winograd.md`.

use sinew_kernels::conv::winograd::{WeightForm, WinogradTile};

use super::{Algorithm, ConvShape};
use crate::plan::{PlanOptions, Winograd};

/// The tiles that have kernels.
const TILES: [WinogradTile; 6] = [
    WinogradTile { output: 2, kernel: 3, stride: 1 },
    WinogradTile { output: 4, kernel: 3, stride: 1 },
    WinogradTile { output: 6, kernel: 3, stride: 1 },
    WinogradTile { output: 2, kernel: 5, stride: 1 },
    WinogradTile { output: 4, kernel: 5, stride: 1 },
    WinogradTile { output: 2, kernel: 3, stride: 2 },
];

/// Tiles of a map below which most of a register tile of 4x4 tiles is empty.
const FEW_TILES: usize = 4;

/// Whole tiles' products that narrow ones among them must add up to: with less, reading weights takes longer than the products.
const WORTH_OF_TILES: usize = 9;

/// Tiles of a layer, of all its maps, that pay for the transform of weights inside a run.
const MANY_TILES: usize = 49;

/// Tiles of a map that pay where groups share blocks.
const SOME_TILES: usize = 16;

/// Tiles of 6x6 outputs of a map that pay for weights of which there are more.
const SIX_TILES: usize = 36;

/// Products per value that the transforms read or write, input and output channels together, from which on 6x6 outputs save more than
/// their transforms cost.
const SIX_PRODUCTS: usize = 40;

/// Pairs of channels up to which the weights of 6x6 outputs, 16 MB, come as fast as the products take them.
const SIX_PAIRS: usize = 256 * 256;

/// Whether tiles of 6x6 outputs, from stored weights, are faster than 4x4, and why.
fn six_pays(shape: &ConvShape) -> Option<String> {
    let [six, four] = [6, 4].map(|output| WinogradTile { output, kernel: 3, stride: 1 });
    let [height, width] = [shape.geometry.out_height, shape.geometry.out_width];
    let [inputs, outputs] = shape.group_channels();
    let share = six.products(height, width) as f64 / four.products(height, width) as f64;
    let pays = six.tiles(height, width) >= SIX_TILES
        && share <= 0.9
        && inputs * outputs >= SIX_PRODUCTS * (inputs + outputs)
        && inputs * outputs <= SIX_PAIRS;
    let tiles = six.tiles(height, width);
    pays.then(|| format!("{tiles} tiles of 6x6 outputs take {share:.2} of the products of 4x4"))
}

/// Winograd tiles of 6x6 outputs, of 4x4 or of 2x2: which are fastest, and why. `docs/winograd.md` has the measurements. It looks at one
/// map and at nothing else: fragments and their baseline are alike.
fn tile_by_shape(shape: &ConvShape, kernel: usize, options: &PlanOptions) -> (usize, String) {
    let g = &shape.geometry;
    let [two, four] = [2, 4].map(|output| WinogradTile { output, kernel, stride: 1 });
    let tiles = |tile: WinogradTile| tile.tiles(g.out_height, g.out_width);
    let products = |tile: WinogradTile| tile.products(g.out_height, g.out_width) as f64;
    let share = products(four) / products(two);
    let [height, width] = [g.out_height, g.out_width];
    let few =
        !are_whole(four, height, width) && four.products(height, width) < WORTH_OF_TILES * four.positions();
    if tiles(four) < FEW_TILES || share > 0.75 || few {
        (2, format!("tiles of 4x4 outputs cover {height}x{width} badly"))
    } else if let Some(why) = six_pays(shape).filter(|_| kernel == 3 && !options.compact_weights) {
        (6, why)
    } else {
        (4, format!("{} tiles of 4x4 outputs take {share:.2} of the products of 2x2", tiles(four)))
    }
}

/// Whether no tile of a map is narrow.
fn are_whole(tile: WinogradTile, height: usize, width: usize) -> bool {
    tile.products(height, width) == tile.tiles(height, width) * tile.positions()
}

/// Tiles of a map with stride 2 below which too few meet each weight.
const FEW_STRIDED_TILES: usize = 9;

/// Whether a tile with stride 2 is faster than direct convolution, which takes 1.44 times its products at most. It looks at one
/// map: fragments and their baseline are alike.
fn strided_pays(shape: &ConvShape, tile: WinogradTile, form: WeightForm) -> Result<(), String> {
    let [height, width] = [shape.geometry.out_height, shape.geometry.out_width];
    let tiles = tile.tiles(height, width);
    let products = tile.products(height, width) as f64 / (height * width * shape.geometry.taps()) as f64;
    if form == WeightForm::Plain {
        return Err("with stride 2, transforming weights costs what it saves".into());
    }
    if tiles < FEW_STRIDED_TILES || products > 0.85 {
        return Err(format!("with stride 2, {tiles} tiles by {products:.2} of the products do not pay"));
    }
    Ok(())
}

/// Whether transformed weights stay in the second-level cache: those of one group, which are worked on one after another.
fn stays_in_cache(shape: &ConvShape, tile: WinogradTile, options: &PlanOptions) -> bool {
    let channels = shape.in_channels / shape.groups;
    let weights = tile.weights() * channels * (shape.out_channels / shape.groups) * size_of::<f32>();
    weights <= options.l2_bytes + options.l2_bytes / 2
}

/// Winograd by shape. The rule follows measured layers: see the bench `conv`.
pub(super) fn winograd(shape: &ConvShape, options: &PlanOptions) -> Result<(Algorithm, String), String> {
    let (Algorithm::Winograd(tile, form), reason) = any_winograd(shape, options)? else {
        return Err("no tile".into());
    };
    let [height, width] = [shape.geometry.out_height, shape.geometry.out_width];
    // the transforms are of whole blocks, so the channels that share one pay for them together
    let channels =
        if shape.groups_share_blocks() { 16 } else { shape.group_channels().into_iter().min().unwrap_or(0) };
    if channels < 16 {
        return Err("with less than 16 channels the transforms cost more than they save".into());
    }
    if shape.groups_share_blocks() && (tile.stride == 2 || tile.tiles(height, width) < SOME_TILES) {
        return Err(
            "groups of 4 or 8 channels pay for transforms with 16 tiles or more and without a stride only"
                .into(),
        );
    }
    if height.min(width) < tile.output {
        return Err(format!("the {height}x{width} map is smaller than a tile"));
    }
    if tile.stride == 2 {
        strided_pays(shape, tile, form)?;
    }
    Ok((Algorithm::Winograd(tile, form), reason))
}

/// The Winograd tile and weights for a shape, whether they pay or not.
pub(super) fn any_winograd(shape: &ConvShape, options: &PlanOptions) -> Result<(Algorithm, String), String> {
    let g = &shape.geometry;
    let kernel = match g.kernel {
        [3, 3] => 3,
        [5, 5] => 5,
        _ => return Err("the window is neither 3x3 nor 5x5".into()),
    };
    let stride = match g.stride {
        [1, 1] => 1,
        [2, 2] => 2,
        _ => return Err("its stride is neither 1 nor 2 in both directions".into()),
    };
    if g.dilation != [1, 1] {
        return Err("it has a dilation".into());
    }
    if shape.groups > 1 && !shape.groups_are_blocks && !shape.groups_share_blocks() {
        return Err("groups are neither whole blocks nor 4 or 8 channels".into());
    }
    let [channels, _] = shape.group_channels();
    let (output, reason) = match options.winograd {
        Winograd::Off => return Err("switched off".into()),
        Winograd::Tile(output) => (output, "the tile asked for".to_owned()),
        Winograd::Auto if stride == 2 => (2, "with stride 2, 25 products in place of 36".to_owned()),
        Winograd::Auto => tile_by_shape(shape, kernel, options),
    };
    let wanted = WinogradTile { output, kernel, stride };
    if !TILES.contains(&wanted) {
        let with = if stride == 2 { " with stride 2" } else { "" };
        return Err(format!(
            "there is no tile of {output}x{output} outputs for a {kernel}x{kernel} window{with}"
        ));
    }
    let (tile, reason) = within_error(wanted, channels, options, reason)?;
    let (form, reason) = match why_plain(shape, tile, options) {
        Some(why) => (WeightForm::Plain, format!("{reason}; {why}")),
        None => (WeightForm::Stored, reason),
    };
    Ok((Algorithm::Winograd(tile, form), reason))
}

/// Why a run starts from plain weights, where it does.
fn why_plain(shape: &ConvShape, tile: WinogradTile, options: &PlanOptions) -> Option<&'static str> {
    if options.compact_weights {
        return Some("weights are kept as they are");
    }
    let few = shape.network <= 2 * options.l2_bytes as u64;
    if tile.output != 4 || few || stays_in_cache(shape, tile, options) {
        return None;
    }
    let [height, width] = [shape.geometry.out_height, shape.geometry.out_width];
    let tiles = tile.tiles(height, width) * shape.maps;
    if shape.maps > 1 && tiles >= MANY_TILES {
        // as fast, without any growth
        return Some("the tiles of many maps make up for transforming weights, which are fewer to stream");
    }
    // the numbers of tiles that the kernels do so for
    (matches!(tiles, 4 | 8) && are_whole(tile, height, width) && (tile.output, tile.kernel) == (4, 3))
        .then_some("weights are transformed in registers, and fewer to stream")
}

/// The tile, or where the bound on its error is above the budget, a smaller one that was not asked for by name.
fn within_error(
    tile: WinogradTile,
    channels: usize,
    options: &PlanOptions,
    reason: String,
) -> Result<(WinogradTile, String), String> {
    let Some(budget) = options.error_budget else { return Ok((tile, reason)) };
    let factor = tile.error_factor(channels);
    if factor <= budget {
        return Ok((tile, reason));
    }
    let over = format!(
        "the error bound of {0}x{0} outputs is {factor:.1} times that of direct convolution, {budget} is allowed",
        tile.output
    );
    let smaller = (2..=tile.output - 2).rev().step_by(2).map(|output| WinogradTile { output, ..tile });
    for tile in smaller.filter(|tile| options.winograd == Winograd::Auto && TILES.contains(tile)) {
        let factor = tile.error_factor(channels);
        if factor <= budget {
            return Ok((tile, format!("{over}, {factor:.1} is that of {0}x{0}", tile.output)));
        }
    }
    Err(over)
}

#[cfg(test)]
mod tests {
    use sinew_kernels::conv::ConvGeometry;

    use super::super::{Family, choose};
    use super::*;

    fn shape(channels: usize, size: usize) -> ConvShape {
        let geometry = ConvGeometry {
            in_height: size,
            in_width: size,
            out_height: size,
            out_width: size,
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            pad_top: 1,
            pad_left: 1,
        };
        ConvShape {
            geometry,
            groups: 1,
            in_channels: channels,
            out_channels: channels,
            groups_are_blocks: true,
            combined: false,
            maps: 1,
            joined: false,
            network: u64::MAX,
            plain_input: false,
        }
    }

    #[test]
    fn an_error_budget_rejects_tiles() {
        let chosen = |winograd, error_budget| {
            let options = PlanOptions { winograd, error_budget, ..PlanOptions::default() };
            choose(&shape(64, 56), &options)
        };
        assert_eq!(chosen(Winograd::Auto, None).algorithm.name(), "winograd-4");
        assert_eq!(chosen(Winograd::Auto, Some(12.5)).algorithm.name(), "winograd-4");
        let wide = |error_budget| {
            let options = PlanOptions { error_budget, ..PlanOptions::default() };
            choose(&shape(128, 56), &options).algorithm.name()
        };
        assert_eq!(
            (wide(None), wide(Some(99.0)), wide(Some(11.0))),
            ("winograd-6", "winograd-4", "winograd-2")
        );
        let smaller = chosen(Winograd::Auto, Some(5.0));
        assert_eq!(smaller.algorithm.name(), "winograd-2");
        assert!(smaller.why.contains("12.4 times that of direct"), "{}", smaller.why);
        let none = chosen(Winograd::Auto, Some(1.0));
        assert_eq!(none.algorithm.name(), "direct");
        assert!(none.why.contains("1 is allowed"), "{}", none.why);
        // A tile asked for by name is not replaced by another.
        assert_eq!(chosen(Winograd::Tile(4), Some(5.0)).algorithm.name(), "direct");
    }

    #[test]
    fn small_groups_share_the_transforms() {
        let algorithm = |channels, size, groups| {
            let shape = ConvShape { groups, groups_are_blocks: false, ..shape(channels, size) };
            choose(&shape, &PlanOptions::default()).algorithm.name()
        };
        assert_eq!(
            (algorithm(128, 56, 32), algorithm(256, 28, 32), algorithm(64, 14, 16)),
            ("winograd-4", "winograd-4", "winograd-4")
        );
        // Few tiles, and groups that do not divide a block.
        assert_eq!(
            (algorithm(256, 7, 32), algorithm(192, 28, 32), algorithm(64, 28, 32)),
            ("grouped", "grouped", "grouped")
        );
    }

    fn strided(channels: usize, size: usize) -> ConvShape {
        let mut shape = shape(channels, size);
        shape.geometry.stride = [2, 2];
        (shape.geometry.out_height, shape.geometry.out_width) = (size.div_ceil(2), size.div_ceil(2));
        shape
    }

    /// What `docs/winograd.md` measured with stride 2.
    #[test]
    fn strides_are_chosen_by_tiles_and_products() {
        let options = PlanOptions::default();
        let name = |shape: &ConvShape, options: &PlanOptions| choose(shape, options).algorithm.name();
        for (size, wanted) in [56, 16, 14, 12, 10]
            .map(|size| (size, "winograd-2-stride-2"))
            .into_iter()
            .chain([8, 2].map(|size| (size, "direct")))
        {
            assert_eq!(name(&strided(64, size), &options), wanted, "{size}");
            // maps are counted one by one
            let maps = ConvShape { maps: 64, ..strided(64, size) };
            assert_eq!(name(&maps, &options), wanted, "{size}");
        }
        assert_eq!(name(&strided(8, 56), &options), "direct");
        let mut uneven = strided(64, 56);
        (uneven.geometry.stride, uneven.geometry.out_width) = ([2, 1], 56);
        assert_eq!(name(&uneven, &options), "direct");
        let of = |winograd, conv, compact_weights| PlanOptions {
            winograd,
            conv,
            compact_weights,
            ..PlanOptions::default()
        };
        let (off, auto) = (Winograd::Off, Winograd::Auto);
        for (options, wanted) in [
            (of(off, None, false), "direct"),
            (of(Winograd::Tile(2), None, false), "winograd-2-stride-2"),
            // no tile of that size has a stride
            (of(Winograd::Tile(4), None, false), "direct"),
            (of(auto, None, true), "direct"),
            (of(auto, Some(Family::Winograd), true), "winograd-2-stride-2-plain-weights"),
            (of(auto, Some(Family::Direct), false), "direct"),
        ] {
            assert_eq!(name(&strided(64, 56), &options), wanted, "{options:?}");
        }
        let forced = of(auto, Some(Family::Winograd), false);
        assert_eq!(name(&strided(64, 8), &forced), "winograd-2-stride-2");
        // Its error bound is below that of direct convolution.
        let budget = |error_budget| PlanOptions { error_budget, ..PlanOptions::default() };
        assert_eq!(name(&strided(64, 56), &budget(Some(0.6))), "winograd-2-stride-2");
        assert_eq!(name(&strided(64, 56), &budget(Some(0.5))), "direct");
    }

    /// What `docs/winograd.md` measured.
    #[test]
    fn tiles_are_chosen_by_products() {
        let tile = |kernel, size| {
            let mut shape = shape(64, size);
            shape.geometry.kernel = [kernel; 2];
            tile_by_shape(&shape, kernel, &PlanOptions::default()).0
        };
        // One tile, or tiles that cover the map badly.
        assert_eq!((tile(3, 4), tile(3, 6), tile(3, 10)), (2, 2, 2));
        // Narrow tiles among others.
        assert_eq!((tile(3, 5), tile(3, 9), tile(3, 13), tile(3, 17)), (2, 2, 4, 4));
        assert_eq!((tile(3, 7), tile(3, 8), tile(3, 12), tile(3, 14), tile(3, 56)), (4, 4, 4, 4, 4));
        assert_eq!((tile(5, 4), tile(5, 6), tile(5, 8)), (2, 2, 4));
    }

    /// What `docs/winograd.md` measured.
    #[test]
    fn large_tiles_are_chosen_by_channels_and_tiles() {
        let name = |channels, size, maps, compact_weights| {
            let options = PlanOptions { compact_weights, ..PlanOptions::default() };
            choose(&ConvShape { maps, ..shape(channels, size) }, &options).algorithm.name()
        };
        let (four, six) = ("winograd-4", "winograd-6");
        assert_eq!(
            (name(96, 32, 1, false), name(256, 56, 1, false), name(128, 112, 1, false)),
            (six, six, six)
        );
        // Too few channels, more weights than come in time, too few tiles.
        assert_eq!(
            (name(64, 224, 1, false), name(512, 56, 1, false), name(128, 28, 1, false)),
            (four, four, four)
        );
        // Fragments take the tile of their baseline, from stored weights too.
        assert_eq!(name(256, 32, 4, false), six);
        assert_eq!(name(256, 32, 1, true), "winograd-4-plain-weights");
    }

    /// What `docs/winograd.md` measured.
    #[test]
    fn few_tiles_start_from_plain_weights_where_they_stream() {
        let form = |channels, size, maps, network| {
            let shape = ConvShape { network, maps, ..shape(channels, size) };
            choose(&shape, &PlanOptions::default()).algorithm.name()
        };
        let (stored, plain, large) = ("winograd-4", "winograd-4-plain-weights", u64::MAX);
        assert_eq!((form(128, 8, 1, large), form(512, 7, 1, large)), (plain, plain));
        // Weights that stay in a cache, by themselves or with those of the whole network; more tiles; more maps.
        assert_eq!((form(64, 8, 1, large), form(128, 8, 1, 1 << 20)), (stored, stored));
        assert_eq!((form(128, 12, 1, large), form(512, 14, 1, large)), (stored, stored));
        assert_eq!(
            (form(128, 8, 2, large), form(128, 8, 4, large), form(128, 8, 16, large)),
            (plain, stored, plain)
        );
    }
}
