//! Layout changes: every table against the definition, element by element.

#[path = "support/blocks.rs"]
mod support;

use proptest::prelude::*;
use sinew_kernels::layout::{CopyChannelsArgs, PackArgs, PlainInput, UnpackArgs, copy_channels};
use sinew_kernels::{Block, LANES};
use support::{Guarded, Numbers, UNWRITTEN, config, tables};

/// Channels of up to three parts, and the live channels of each block.
fn parts() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![1..40usize, Just(16), Just(3)], 1..4)
        .prop_map(|parts| lanes(&parts))
}

fn lanes(parts: &[usize]) -> Vec<u8> {
    let part = |&channels: &usize| (0..channels).step_by(LANES).map(move |c| (channels - c).min(LANES) as u8);
    parts.iter().flat_map(part).collect()
}

/// Block and lane of each channel.
fn places(lanes: &[u8]) -> Vec<(usize, usize)> {
    let block = |(block, &live): (usize, &u8)| (0..usize::from(live)).map(move |lane| (block, lane));
    lanes.iter().enumerate().flat_map(block).collect()
}

/// NCHW, NHWC, rows with a gap, and NHWC of an image with more channels.
fn strides(kind: usize, channels: usize, height: usize, width: usize) -> [usize; 3] {
    match kind {
        0 => [height * width, width, 1],
        1 => [1, width * channels, channels],
        2 => [height * (width + 3) + 1, width + 3, 1],
        3 => [2, (width * 2 + 1) * (2 * channels + 1), 2 * channels + 1],
        _ => [height * width * 2, width * 2, 2],
    }
}

fn sizes() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![(1..4usize, 1..8usize), (1..4usize, 14..18usize), (1..3usize, 30..40usize)]
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn pack_matches_its_definition(
        lanes in parts(), size in sizes(), kind in 0..5usize, bytes: bool, cut in (0.0..1.0f64, 0.0..1.0f64),
        skip in 0.0..1.0f64, seed: u64,
    ) {
        let (height, width) = size;
        let places = places(&lanes);
        let strides = strides(kind, places.len(), height, width);
        let len = (places.len() - 1) * strides[0] + (height - 1) * strides[1] + (width - 1) * strides[2] + 1;
        let mut numbers = Numbers::new(seed);
        let floats = numbers.plain(len, true);
        let small: Vec<u8> = (0..len).map(|_| numbers.bits() as u8).collect();
        let plane = height * width;
        let ends = [cut.0, cut.1].map(|cut| (cut * (plane + 1) as f64) as usize);
        let range = ends[0].min(ends[1])..ends[0].max(ends[1]);
        let first = (skip * lanes.len() as f64) as usize;
        let first_channel = lanes[..first].iter().map(|&live| usize::from(live)).sum();
        let mut want = vec![[0f32; LANES]; (lanes.len() - first) * range.len()];
        for (channel, &(block, lane)) in places.iter().enumerate().filter(|(_, (block, _))| *block >= first) {
            for (i, pixel) in range.clone().enumerate() {
                let at = channel * strides[0] + pixel / width * strides[1] + pixel % width * strides[2];
                let x = if bytes { f32::from(small[at]) } else { floats[at] };
                want[(block - first) * range.len() + i][lane] = x;
            }
        }
        for table in tables() {
            let input = if bytes { PlainInput::U8(&small) } else { PlainInput::F32(&floats) };
            let args = PackArgs { input, strides, width, first_channel, lanes: &lanes[first..] };
            let mut out = Guarded::new(lanes.len() - first, range.len());
            out.with(|out| (table.pack.run)(&args, range.clone(), out));
            let got = out.take(table.pack.name);
            // Dead lanes are zeros, so all are compared; NaN payloads stay.
            let bits = |blocks: &[Block]| blocks.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&got), bits(&want), "{}", table.pack.name);
        }
    }

    #[test]
    fn unpack_matches_its_definition(
        lanes in parts(), size in sizes(), kind in 0..5usize, cut in (0.0..1.0f64, 0.0..1.0f64), seed: u64,
    ) {
        let (height, width) = size;
        let places = places(&lanes);
        let strides = strides(kind, places.len(), height, width);
        let plane = height * width;
        let mut input = Numbers::new(seed).blocks(lanes.len() * plane, true);
        for (block, &live) in lanes.iter().enumerate() {
            for input in &mut input[block * plane..][..plane] {
                input[usize::from(live)..].fill(f32::NAN);
            }
        }
        let ends = [cut.0, cut.1].map(|cut| (cut * (height + 1) as f64) as usize);
        let rows = ends[0].min(ends[1])..ends[0].max(ends[1]);
        let len = (places.len() - 1) * strides[0] + rows.len() * strides[1] + (width - 1) * strides[2] + 1;
        let mut want = vec![UNWRITTEN.to_bits(); len];
        for (channel, &(block, lane)) in places.iter().enumerate() {
            for row in rows.clone() {
                for column in 0..width {
                    let x = input[block * plane + row * width + column][lane];
                    let at = channel * strides[0] + (row - rows.start) * strides[1] + column * strides[2];
                    want[at] = if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
                }
            }
        }
        for table in tables() {
            let args = UnpackArgs { input: &input, plane, strides, width, lanes: &lanes };
            let mut got = vec![UNWRITTEN; len];
            (table.unpack.run)(&args, rows.start * width..rows.end * width, &mut got);
            let got: Vec<u32> = got.iter().map(|x| x.to_bits()).collect();
            prop_assert_eq!(&got, &want, "{}", table.unpack.name);
        }
    }

    #[test]
    fn copied_channels_are_those_asked_for(
        in_lanes in parts(), out_lanes in parts(), plane in 1..6usize, range in (0.0..1.0f64, 0.0..1.0f64),
        to in 0.0..1.0f64, skip in 0.0..1.0f64, cut in (0.0..1.0f64, 0.0..1.0f64), seed: u64,
    ) {
        let (from_places, to_places) = (places(&in_lanes), places(&out_lanes));
        let from_channel = (range.0 * from_places.len() as f64) as usize;
        let to_channel = (to * to_places.len() as f64) as usize;
        let room = (from_places.len() - from_channel).min(to_places.len() - to_channel);
        let count = (range.1 * (room + 1) as f64) as usize;
        let input = Numbers::new(seed).blocks(in_lanes.len() * plane, false);
        let first = (skip * out_lanes.len() as f64) as usize;
        let first_channel = out_lanes[..first].iter().map(|&live| usize::from(live)).sum();
        let ends = [cut.0, cut.1].map(|cut| (cut * (plane + 1) as f64) as usize);
        let pixels = ends[0].min(ends[1])..ends[0].max(ends[1]);
        let mut want = vec![[UNWRITTEN.to_bits(); LANES]; (out_lanes.len() - first) * pixels.len()];
        for channel in to_channel..to_channel + count {
            let (block, lane) = to_places[channel];
            if block < first {
                continue;
            }
            let (from_block, from_lane) = from_places[channel - to_channel + from_channel];
            for (i, pixel) in pixels.clone().enumerate() {
                let want = &mut want[(block - first) * pixels.len() + i];
                want[lane] = input[from_block * plane + pixel][from_lane].to_bits();
                want[usize::from(out_lanes[block])..].fill(0);
            }
        }
        let args = CopyChannelsArgs {
            input: &input, in_lanes: &in_lanes, plane, from_channel, to_channel, count, first_channel,
            out_lanes: &out_lanes[first..],
        };
        let mut out = Guarded::new(out_lanes.len() - first, pixels.len());
        out.with(|out| copy_channels(&args, pixels.clone(), out));
        let got: Vec<[u32; LANES]> = out.take("copy_channels").iter().map(|b| b.map(f32::to_bits)).collect();
        prop_assert_eq!(got, want);
    }
}
