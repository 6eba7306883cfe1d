//! NumPy's `.npy` files.

use npyz::{DType as NpyType, NpyFile, Order, TypeChar, WriterBuilder};
use sinew::{DType, Data, Tensor};

/// Reads an array whose elements have exactly one of the engine's types.
pub(super) fn read(bytes: &[u8]) -> Result<Tensor, String> {
    let bad = |error: std::io::Error| format!("not a .npy file: {error}");
    let file = NpyFile::new(bytes).map_err(bad)?;
    let NpyType::Plain(element) = file.dtype() else {
        return Err(format!("holds records of {}", file.dtype().descr()));
    };
    let dtype = match (element.type_char(), element.size_field()) {
        (TypeChar::Float, 4) => DType::F32,
        (TypeChar::Uint, 1) => DType::U8,
        (TypeChar::Int, 8) => DType::I64,
        _ => return Err(format!("holds elements of type {element}, expected float32, uint8 or int64")),
    };
    let shape: Option<Vec<usize>> = file.shape().iter().map(|&extent| usize::try_from(extent).ok()).collect();
    let count = shape.as_ref().and_then(|shape| shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)));
    let (Some(shape), Some(count)) = (shape, count) else {
        return Err(format!("its shape {:?} is too large", file.shape()));
    };
    let order = file.order();
    let header = file.header().clone();
    // The data is what is left of the bytes: a shape beyond it allocates nothing.
    let data = file.into_inner();
    if count.checked_mul(dtype.bytes()) != Some(data.len()) {
        return Err(format!(
            "{} bytes of data do not fill the shape {shape:?} of {}",
            data.len(),
            dtype.name()
        ));
    }
    let file = NpyFile::with_header(header, data);
    let data = match dtype {
        DType::F32 => Data::F32(in_order(file.into_vec().map_err(bad)?, &shape, order)),
        DType::U8 => Data::U8(in_order(file.into_vec().map_err(bad)?, &shape, order)),
        DType::I64 => Data::I64(in_order(file.into_vec().map_err(bad)?, &shape, order)),
    };
    Tensor::new(shape, data).map_err(|error| error.to_string())
}

/// Elements as stored, in row-major order.
fn in_order<T: Copy>(stored: Vec<T>, shape: &[usize], order: Order) -> Vec<T> {
    if order == Order::C || shape.len() < 2 {
        return stored;
    }
    (0..stored.len())
        .map(|mut index| {
            // The first dimension is the fastest in the file, the last one here.
            let (mut at, mut stride) = (0, stored.len());
            for &extent in shape.iter().rev() {
                stride /= extent;
                at += index % extent * stride;
                index /= extent;
            }
            stored[at]
        })
        .collect()
}

/// The bytes of a file.
pub(super) fn write(shape: &[usize], data: &Data) -> std::io::Result<Vec<u8>> {
    let shape: Vec<u64> = shape.iter().map(|&extent| extent as u64).collect();
    match data {
        Data::F32(elements) => encode(&shape, elements),
        Data::U8(elements) => encode(&shape, elements),
        Data::I64(elements) => encode(&shape, elements),
    }
}

fn encode<T: npyz::AutoSerialize + Copy>(shape: &[u64], elements: &[T]) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes).begin_nd()?;
    writer.extend(elements.iter().copied())?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for data in [Data::F32(vec![1.5; 6]), Data::U8((0..6).collect()), Data::I64((-3..3).collect())] {
            let bytes = write(&[2, 3], &data).expect("in memory");
            assert_eq!(read(&bytes), Ok(Tensor::new(vec![2, 3], data).expect("6 elements")));
        }
    }

    #[test]
    fn fortran_order_is_undone() {
        let elements = npyz::WriteOptions::new().default_dtype().shape(&[2, 3, 2]).order(Order::Fortran);
        let mut bytes = Vec::new();
        let mut writer = elements.writer(&mut bytes).begin_nd().expect("in memory");
        // Element [i, j, k] is 100 i + 10 j + k.
        for index in 0..12u8 {
            let (i, j, k) = (index % 2, index / 2 % 3, index / 6);
            writer.push(&(100 * i + 10 * j + k)).expect("in memory");
        }
        writer.finish().expect("in memory");
        let expected = Data::U8(vec![0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121]);
        assert_eq!(read(&bytes).map(|tensor| tensor.data().clone()), Ok(expected));
    }

    #[test]
    fn shapes_beyond_the_data_are_refused() {
        let bytes = write(&[4], &Data::F32(vec![1.0; 4])).expect("in memory");
        assert!(read(&bytes[..bytes.len() - 1]).is_err());
        assert!(read(&bytes[..20]).is_err());
        assert!(read(b"").is_err());
    }
}
