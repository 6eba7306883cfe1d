//! Any bytes: an error or a graph that keeps its invariants, with forms put together and without; never a panic or a hang.
//! What was read can be written and read again.
//!
//!     cargo +nightly fuzz run onnx_import fuzz/corpus/onnx_import fuzz/seeds/onnx_import

#![no_main]

use libfuzzer_sys::fuzz_target;
use sinew::onnx::{ImportOptions, Limits, export, import};
use sinew::onnx::recover::FORMS;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { bytes: 1 << 16, nodes: 200, dims: 6, elements: 1 << 14, macs: 1 << 22 };
    let options = ImportOptions { limits, ..ImportOptions::default() };
    let Ok(imported) = import(bytes, &options) else { return };
    let graph = &imported.graph;
    graph.check().expect("recovered forms keep the invariants");
    let left_out = FORMS.iter().map(|form| form.name.to_owned()).collect();
    let apart = import(bytes, &ImportOptions { left_out, ..options }).expect("the same file");
    apart.graph.check().expect("import keeps the invariants");
    let written = export(graph).expect("a valid graph can be written");
    // Written out, what was one node may be several: the default limits.
    let again = import(&written, &ImportOptions::default()).expect("what was written can be read");
    for (&before, &after) in graph.outputs.iter().zip(&again.graph.outputs) {
        assert_eq!(graph.shape(before), again.graph.shape(after));
        assert_eq!(graph.value(before).name, again.graph.value(after).name);
    }
});
