//! Classifies one image of the demo's test set: the least a program needs.
//!
//! `cargo run --release --example classify`

use std::sync::Arc;

use sinew::onnx::{ImportOptions, import};
use sinew::{Input, Model, Options, Output, Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let imported = import(include_bytes!("../zoo/demo/demo.onnx"), &ImportOptions::default())?;
    let model = Arc::new(Model::new(imported.graph, &Options::default())?);
    let mut session = Session::new(model, SessionOptions::default())?;

    // A picture in the model's own layout: one 28 x 28 image, 0 black to 1 white.
    let image: Vec<f32> = (0..28 * 28).map(|i| if (i / 28 + i % 28) % 7 < 3 { 1.0 } else { 0.0 }).collect();
    let mut logits = [0.0; 10];
    session.run(&[Input::F32(&image)], &mut [Output::F32(&mut logits)])?;

    let best = (0..10).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
    println!("class {best} on {}: {logits:?}", session.isa());
    Ok(())
}
