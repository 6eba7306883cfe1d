//! Images as tensors: sizes, colours, scales and layouts. The resized values are those of Pillow 11.

use sinew::plan::Port;
use sinew::preprocess::{Color, Pixels, Preprocess, Range, Resize};
use sinew::{DType, Data, Tensor};

/// An image without any smoothness: every wrong tap shows.
fn image(width: usize, height: usize) -> Vec<u8> {
    (0..(width * height * 3) as u64).map(|x| ((x * x * 31 + x * 17 + (x >> 3)) % 251) as u8).collect()
}

fn port(dtype: DType, shape: &[usize]) -> Port {
    Port { name: "image".into(), shape: shape.to_vec(), dtype }
}

fn tensor(options: &Preprocess, port: &Port, size: [usize; 2]) -> Tensor {
    let rgb = image(size[0], size[1]);
    let pixels = Pixels::new(size[0], size[1], &rgb).expect("three bytes for each pixel");
    options.for_input(port).expect("an input for images").tensor(&pixels).expect("a tensor")
}

fn bytes(tensor: &Tensor) -> &[u8] {
    match tensor.data() {
        Data::U8(bytes) => bytes,
        other => panic!("expected bytes, got {other:?}"),
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn resizing_gives_pillows_values() {
    let red = |size, height, width| {
        let tensor = tensor(&Preprocess::default(), &port(DType::U8, &[1, 3, height, width]), size);
        bytes(&tensor)[..height * width].to_vec()
    };
    assert_eq!(red([7, 5], 4, 3), [113, 159, 141, 176, 153, 135, 133, 148, 168, 129, 144, 162]);
    let enlarged = [
        0, 40, 102, 191, 185, 155, 60, 95, 133, 149, 168, 183, 151, 177, 179, 85, 143, 225, 177, 196, 187,
        81, 129, 203, 195, 208, 192, 78, 119, 188,
    ];
    assert_eq!(red([4, 3], 5, 6), enlarged);
}

#[test]
fn large_images_have_pillows_hash() {
    let cases = [
        ([640, 426], [224, 224], 0xfd90_9921_dde7_9f62, 0x87ec_737f_04e8_a085),
        ([31, 200], [64, 17], 0x0011_2f6d_536f_cea1, 0x155c_2047_95b3_f244),
        ([224, 224], [224, 100], 0x1431_8c63_0665_cf1c, 0x7984_c6e9_48ed_8265),
        ([5, 5], [300, 299], 0x0b43_af21_18da_9614, 0xee9e_b3fb_0dcf_19ef),
    ];
    for (size, [width, height], rgb, gray) in cases {
        let of = |channels| port(DType::U8, &[1, channels, height, width]);
        assert_eq!(hash(bytes(&tensor(&Preprocess::default(), &of(3), size))), rgb, "{size:?} rgb");
        assert_eq!(hash(bytes(&tensor(&Preprocess::default(), &of(1), size))), gray, "{size:?} gray");
    }
}

#[test]
fn colours_and_layouts_only_reorder() {
    let nchw = tensor(&Preprocess::default(), &port(DType::U8, &[1, 3, 4, 6]), [6, 4]);
    let nhwc = tensor(&Preprocess::default(), &port(DType::U8, &[1, 4, 6, 3]), [6, 4]);
    let bgr = Preprocess { color: Some(Color::Bgr), ..Preprocess::default() };
    let bgr = tensor(&bgr, &port(DType::U8, &[1, 3, 4, 6]), [6, 4]);
    let original = image(6, 4);
    assert_eq!(bytes(&nhwc), original);
    assert_eq!((nchw.shape(), nhwc.shape()), (&[1, 3, 4, 6][..], &[1, 4, 6, 3][..]));
    for (index, &value) in original.iter().enumerate() {
        let (pixel, channel) = (index / 3, index % 3);
        assert_eq!(bytes(&nchw)[channel * 24 + pixel], value);
        assert_eq!(bytes(&bgr)[(2 - channel) * 24 + pixel], value);
    }
}

#[test]
fn scales_are_plain_arithmetic() {
    let options =
        Preprocess { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], ..Preprocess::default() };
    let unit = tensor(&options, &port(DType::F32, &[1, 3, 2, 2]), [2, 2]);
    let options = Preprocess { range: Some(Range::Byte), ..options };
    let byte = tensor(&options, &port(DType::F32, &[1, 3, 2, 2]), [2, 2]);
    let plain = tensor(&Preprocess::default(), &port(DType::U8, &[1, 3, 2, 2]), [2, 2]);
    for (index, &value) in bytes(&plain).iter().enumerate() {
        let (mean, std) = (options.mean[index / 4], options.std[index / 4]);
        let value = f32::from(value);
        assert_eq!(unit.as_f32().map(|x| x[index]), Some((value / 255.0 - mean) / std));
        assert_eq!(byte.as_f32().map(|x| x[index]), Some((value - mean) / std));
    }
}

#[test]
fn crop_takes_the_middle_and_pad_adds_black() {
    let with = |resize, size, height, width| {
        let options = Preprocess { resize, ..Preprocess::default() };
        bytes(&tensor(&options, &port(DType::U8, &[1, height, width, 3]), size)).to_vec()
    };
    // 8x4 to 4x4: columns 2 to 5 as they are; the same on its side.
    let wide = image(8, 4);
    let middle: Vec<u8> = wide.chunks(24).flat_map(|row| row[6..18].to_vec()).collect();
    assert_eq!(with(Resize::Crop, [8, 4], 4, 4), middle);
    assert_eq!(with(Resize::Crop, [4, 8], 4, 4), image(4, 8)[24..72]);
    // 4x2 into 4x4: one black row above and below.
    let padded = with(Resize::Pad, [4, 2], 4, 4);
    assert_eq!(padded, [vec![0; 12], image(4, 2), vec![0; 12]].concat());
    let padded = with(Resize::Pad, [1, 5], 5, 4);
    for (row, original) in padded.chunks(12).zip(image(1, 5).chunks(3)) {
        assert_eq!(row, [&[0; 3], original, &[0; 6]].concat());
    }
    // Proportions far beyond the tensor's leave at least one pixel.
    assert_eq!(with(Resize::Crop, [5000, 1], 4, 4).len(), 48);
    assert_eq!(with(Resize::Pad, [1, 5000], 4, 4).len(), 48);
}

#[test]
fn what_does_not_fit_is_refused() {
    let fails = |options: &Preprocess, dtype, shape: &[usize]| {
        options.for_input(&port(dtype, shape)).expect_err("refused").to_string()
    };
    let plain = Preprocess::default();
    assert!(fails(&plain, DType::F32, &[1, 4, 8, 8]).contains("no batch of images"));
    assert!(fails(&plain, DType::F32, &[1, 10]).contains("no batch of images"));
    assert!(fails(&plain, DType::I64, &[1, 3, 8, 8]).contains("i64"));
    let gray = Preprocess { color: Some(Color::Gray), ..plain.clone() };
    assert!(fails(&gray, DType::F32, &[1, 3, 8, 8]).contains("gray"));
    let scaled = Preprocess { mean: [0.5; 3], ..plain.clone() };
    assert!(fails(&scaled, DType::U8, &[1, 3, 8, 8]).contains("u8"));
    let zero = Preprocess { std: [1.0, 0.0, 1.0], ..plain };
    assert!(fails(&zero, DType::F32, &[1, 3, 8, 8]).contains("std"));
    assert!(Pixels::new(2, 2, &[0; 11]).is_err());
    assert!(Pixels::new(0, 2, &[]).is_err());
    assert!(Pixels::new(usize::MAX, 3, &[0; 11]).is_err());
}
