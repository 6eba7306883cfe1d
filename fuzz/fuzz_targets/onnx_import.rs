//! Any bytes: an error or a graph that keeps its invariants, also after forms are put together; never a panic or a hang.
//! What was read can be written and read again.
//!
//!     cargo +nightly fuzz run onnx_import fuzz/corpus/onnx_import fuzz/seeds/onnx_import

#![no_main]

use libfuzzer_sys::fuzz_target;
use sinew::onnx::{ImportOptions, Limits, export, import, recover};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { bytes: 1 << 16, nodes: 200, dims: 6, elements: 1 << 14, macs: 1 << 22 };
    let options = ImportOptions { limits, ..ImportOptions::default() };
    let Ok(mut imported) = import(bytes, &options) else { return };
    let graph = &mut imported.graph;
    graph.check().expect("import keeps the invariants");
    recover(graph, &[]).expect("no form is left out");
    graph.check().expect("recovered forms keep the invariants");
    let written = export(graph).expect("a valid graph can be written");
    // Written out, what was one node may be several: the default limits.
    let again = import(&written, &ImportOptions::default()).expect("what was written can be read");
    for (&before, &after) in graph.outputs.iter().zip(&again.graph.outputs) {
        assert_eq!(graph.shape(before), again.graph.shape(after));
        assert_eq!(graph.value(before).name, again.graph.value(after).name);
    }
});
