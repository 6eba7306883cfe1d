//! A model's outputs: collected over batches, told, and written.

use std::cmp::Ordering;
use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use sinew::plan::Port;
use sinew::{DType, Data, Output};

use super::files::{self, Staged, file_name};
use super::times::shape as by_x;
use super::{Failure, Report, Result, npy};

/// One output, of all batches.
struct Collected {
    name: String,
    shape: Vec<usize>,
    elements: Data,
}

/// All outputs of a model.
pub(super) struct Outputs {
    all: Vec<Collected>,
    batches: usize,
}

/// The items of a batch that are told in text; JSON holds all.
const TOLD: usize = 10;

impl Outputs {
    /// Space for so many batches, one after the other along the first dimension.
    pub(super) fn new(inputs: &[Port], outputs: &[Port], batches: usize) -> Result<Self> {
        let batch = inputs.first().and_then(|port| port.shape.first().copied());
        if batches > 1 {
            // Otherwise items of different batches would not be told apart.
            let other = |port: &&Port| port.shape.len() < 2 || port.shape.first().copied() != batch;
            if let Some(port) = inputs.iter().find(other) {
                let reason =
                    format!("\"{}\" is {}: the inputs have no common batch", port.name, by_x(&port.shape));
                return Err(Failure(reason));
            }
            if let Some(port) = outputs.iter().find(|port| port.shape.first().copied() != batch) {
                let shape = by_x(&port.shape);
                let reason =
                    format!("{batches} batches: output \"{}\" is {shape}, it has no batch", port.name);
                return Err(Failure(reason));
            }
        }
        let collected = |port: &Port| {
            let mut shape = port.shape.clone();
            if let Some(first) = shape.first_mut() {
                *first *= batches;
            }
            let len = port.len() * batches;
            let elements = match port.dtype {
                DType::I64 => Data::I64(vec![0; len]),
                _ => Data::F32(vec![0.0; len]),
            };
            Collected { name: port.name.clone(), shape, elements }
        };
        Ok(Self { all: outputs.iter().map(collected).collect(), batches })
    }

    /// Where one run writes.
    pub(super) fn batch(&mut self, index: usize) -> Vec<Output<'_>> {
        let batches = self.batches;
        let part = |len: usize| index * (len / batches)..(index + 1) * (len / batches);
        let outputs = self.all.iter_mut().map(|output| match &mut output.elements {
            Data::F32(data) => {
                let part = part(data.len());
                Output::F32(&mut data[part])
            }
            Data::I64(data) => {
                let part = part(data.len());
                Output::I64(&mut data[part])
            }
            Data::U8(_) => unreachable!("outputs are f32 or i64"),
        });
        outputs.collect()
    }

    /// Tells every output with its hash and the `top` largest elements of each item.
    pub(super) fn tell(&self, top: usize, labels: Option<&[String]>, report: &mut Report) -> Result<()> {
        if let Some(labels) = labels
            && self.all.iter().all(|output| output.item_len() != labels.len())
        {
            let lens: Vec<String> = self.all.iter().map(|output| output.item_len().to_string()).collect();
            let reason = format!("{} labels, an item of the outputs has {}", labels.len(), lens.join(", "));
            return Err(Failure(reason));
        }
        let mut told = Vec::new();
        for output in &self.all {
            let hash = output.hash();
            let dtype = output.dtype().name();
            report.line(format!("output \"{}\" {dtype} {} sha256 {hash}", output.name, by_x(&output.shape)));
            let labels = labels.filter(|labels| labels.len() == output.item_len());
            let mut items = Vec::new();
            for item in 0..if top == 0 { 0 } else { output.items() } {
                let best = output.top(item, top);
                if item < TOLD {
                    report.line(format!("  {item}: {}", output.line(&best, labels)));
                }
                items.push(output.json(&best, labels));
            }
            if items.len() > TOLD {
                report.line(format!("  and {} more", items.len() - TOLD));
            }
            told.push(json!({
                "name": output.name,
                "shape": output.shape,
                "dtype": dtype,
                "sha256": hash,
                "top": items,
            }));
        }
        report.set("outputs", told);
        Ok(())
    }

    /// Writes each output to a folder as `NAME.npy` and gives the files' names.
    pub(super) fn stage(&self, folder: &Path, staged: &mut Staged) -> Result<Vec<String>> {
        files::make_folder(folder)?;
        let mut names: Vec<String> = Vec::new();
        for (index, output) in self.all.iter().enumerate() {
            let mut name = format!("{}.npy", file_name(&output.name));
            if names.contains(&name) {
                name = format!("{index}_{name}");
            }
            let path = folder.join(&name);
            let bytes =
                npy::write(&output.shape, &output.elements).map_err(|error| Failure::at(&path, error))?;
            staged.add(&path, &bytes)?;
            names.push(name);
        }
        Ok(names)
    }

    /// Writes all outputs one after the other as little-endian f32.
    pub(super) fn stage_raw(&self, path: &Path, staged: &mut Staged) -> Result<()> {
        let mut bytes = Vec::new();
        for output in &self.all {
            match &output.elements {
                Data::F32(data) => bytes.extend(data.iter().flat_map(|x| x.to_le_bytes())),
                Data::I64(data) => bytes.extend(data.iter().flat_map(|&x| (x as f32).to_le_bytes())),
                Data::U8(data) => bytes.extend(data.iter().flat_map(|&x| f32::from(x).to_le_bytes())),
            }
        }
        staged.add(path, &bytes)
    }
}

impl Collected {
    fn dtype(&self) -> DType {
        match self.elements {
            Data::F32(_) => DType::F32,
            Data::U8(_) => DType::U8,
            Data::I64(_) => DType::I64,
        }
    }

    /// Items of the batch: along the first dimension.
    fn items(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    fn item_len(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Over the raw little-endian bytes.
    fn hash(&self) -> String {
        let mut hash = Sha256::new();
        match &self.elements {
            Data::F32(data) => data.iter().for_each(|x| hash.update(x.to_le_bytes())),
            Data::I64(data) => data.iter().for_each(|x| hash.update(x.to_le_bytes())),
            Data::U8(data) => hash.update(data),
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Positions of the largest elements of an item, the largest first, the first of equals first. NaN stands before all
    /// numbers: it is what to look at.
    fn top(&self, item: usize, count: usize) -> Vec<usize> {
        let len = self.item_len();
        let range = item * len..(item + 1) * len;
        match &self.elements {
            Data::F32(data) => largest(&data[range], count, |a, b| match (a.is_nan(), b.is_nan()) {
                // The sign of a zero does not order.
                (false, false) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
                (a, b) => a.cmp(&b),
            }),
            Data::I64(data) => largest(&data[range], count, i64::cmp),
            Data::U8(data) => largest(&data[range], count, u8::cmp),
        }
        .into_iter()
        .map(|index| item * len + index)
        .collect()
    }

    fn line(&self, best: &[usize], labels: Option<&[String]>) -> String {
        let element = |&at: &usize| {
            let index = at % self.item_len();
            let label = labels.map(|labels| format!(" {}", labels[index])).unwrap_or_default();
            match &self.elements {
                Data::F32(data) => format!("[{index}{label}] {}", data[at]),
                Data::I64(data) => format!("[{index}{label}] {}", data[at]),
                Data::U8(data) => format!("[{index}{label}] {}", data[at]),
            }
        };
        best.iter().map(element).collect::<Vec<_>>().join("  ")
    }

    fn json(&self, best: &[usize], labels: Option<&[String]>) -> Value {
        let element = |&at: &usize| {
            let index = at % self.item_len();
            let mut object = Map::new();
            object.insert("index".into(), index.into());
            // JSON has no NaN and no infinities: null.
            let value = match &self.elements {
                Data::F32(data) => data[at].into(),
                Data::I64(data) => data[at].into(),
                Data::U8(data) => data[at].into(),
            };
            object.insert("value".into(), value);
            if let Some(labels) = labels {
                object.insert("label".into(), labels[index].as_str().into());
            }
            Value::Object(object)
        };
        best.iter().map(element).collect()
    }
}

/// Indices of the `count` largest elements, in descending order; equal ones in ascending order of index.
fn largest<T>(elements: &[T], count: usize, compare: impl Fn(&T, &T) -> Ordering) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..elements.len()).collect();
    let descending = |&a: &usize, &b: &usize| compare(&elements[b], &elements[a]).then(a.cmp(&b));
    if count < indices.len() {
        indices.select_nth_unstable_by(count, descending);
        indices.truncate(count);
    }
    indices.sort_unstable_by(descending);
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_nan_before_them() {
        let elements = vec![0.5, -1.0, f32::NAN, 0.5, f32::INFINITY, 0.0];
        let output = Collected { name: "y".into(), shape: vec![1, 6], elements: Data::F32(elements) };
        assert_eq!(output.top(0, 4), [2, 4, 0, 3]);
        assert_eq!(output.top(0, 9), [2, 4, 0, 3, 5, 1]);
        assert_eq!(output.json(&[2], None)[0]["value"], Value::Null);
    }

    #[test]
    fn hashes_are_over_little_endian_bytes() {
        let output = Collected { name: "y".into(), shape: vec![1], elements: Data::F32(vec![1.0]) };
        // SHA-256 of 00 00 80 3f.
        let expected = "e00e5eb9444182f352323374ef4e08ebcb784725fdd4fd612d7730540b3e0c8d";
        assert_eq!(output.hash(), expected);
    }
}
