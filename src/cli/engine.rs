//! The options that every command with a model has: what it runs on and how.

use clap::Args;
use sinew::plan::{Family, Io, PlanOptions, Shortcut, Strassen, WeightType, Winograd};
use sinew::{Isa, SessionOptions};

/// Threads, instruction set, algorithms, and the form of the answer.
#[derive(Args, Clone)]
pub(super) struct EngineArguments {
    /// Threads that large steps are split over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Instruction set: scalar, avx2, avx512 or neon [default: SINEW_ISA, else the best there is]
    #[arg(long, value_name = "ISA", value_parser = isa)]
    isa: Option<Isa>,
    /// Algorithm for every convolution that it serves: direct, im2col or winograd
    #[arg(long, value_name = "ALGORITHM", value_parser = family)]
    conv: Option<Family>,
    /// Winograd tiles that may be chosen: off, 2, 4 or 6 [default: by shape]
    #[arg(long, value_name = "TILE", value_parser = winograd)]
    winograd: Option<Winograd>,
    /// Strassen's algorithm for 1x1 layers: off, or on (wherever it serves) [default: by shape]
    #[arg(long, value_name = "WHEN", value_parser = strassen)]
    strassen: Option<Strassen>,
    /// Winograd and Strassen only up to this many times the error bound of direct convolution
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    error_budget: Option<f64>,
    /// Keep weights as they are in the file and transform them in each run: slower, without any growth
    #[arg(long)]
    compact_weights: bool,
    /// Where the shortcut of a residual layer made of streams goes: fold (centre tap) or add (to the sums) [default: add
    /// under Winograd, else fold]
    #[arg(long, value_name = "PLACE", value_parser = shortcut)]
    shortcut: Option<Shortcut>,
    /// Weights of convolutions and dense layers: f32, or f16 (rounded to 16 bits, half of the compiled file; computed in
    /// f32) [default: f32]
    #[arg(long, value_name = "TYPE", value_parser = weights)]
    weights: Option<WeightType>,
    /// A pass or a recovered form that is left out; repeatable, `sinew plan` lists those that apply
    #[arg(long, value_name = "NAME")]
    pub(super) without: Vec<String>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub(super) json: bool,
}

impl EngineArguments {
    pub(super) fn threads(&self) -> usize {
        usize::from(self.threads)
    }

    pub(super) fn isa(&self) -> Option<Isa> {
        self.isa
    }

    pub(super) fn plan_options(&self, io: Io) -> PlanOptions {
        PlanOptions {
            threads: self.threads(),
            conv: self.conv,
            winograd: self.winograd.unwrap_or(Winograd::Auto),
            strassen: self.strassen.unwrap_or(Strassen::Auto),
            error_budget: self.error_budget,
            compact_weights: self.compact_weights,
            shortcut: self.shortcut.unwrap_or(Shortcut::Auto),
            weights: self.weights.unwrap_or(WeightType::F32),
            io,
            ..PlanOptions::default()
        }
    }

    pub(super) fn session_options(&self) -> SessionOptions {
        SessionOptions { isa: self.isa, threads: Some(self.threads()) }
    }

    /// Whether weights are rounded.
    pub(super) fn rounds_weights(&self) -> bool {
        self.weights == Some(WeightType::F16)
    }

    /// The same with weights as they are in the file.
    pub(super) fn with_exact_weights(&self) -> Self {
        Self { weights: None, ..self.clone() }
    }

    /// The first option here that a plan depends on, but the number of threads.
    pub(super) fn of_the_plan(&self) -> Option<&'static str> {
        let given = [
            ("--conv", self.conv.is_some()),
            ("--winograd", self.winograd.is_some()),
            ("--strassen", self.strassen.is_some()),
            ("--error-budget", self.error_budget.is_some()),
            ("--compact-weights", self.compact_weights),
            ("--shortcut", self.shortcut.is_some()),
            ("--weights", self.weights.is_some()),
            ("--without", !self.without.is_empty()),
        ];
        given.into_iter().find_map(|(name, given)| given.then_some(name))
    }
}

fn isa(name: &str) -> Result<Isa, String> {
    name.parse().map_err(|error: sinew_kernels::isa::UnknownIsa| error.to_string())
}

fn family(name: &str) -> Result<Family, String> {
    [Family::Direct, Family::Im2col, Family::Winograd]
        .into_iter()
        .find(|family| family.name() == name)
        .ok_or_else(|| "expected direct, im2col or winograd".into())
}

fn shortcut(place: &str) -> Result<Shortcut, String> {
    match place {
        "fold" => Ok(Shortcut::Fold),
        "add" => Ok(Shortcut::Add),
        _ => Err("expected fold or add".into()),
    }
}

fn weights(name: &str) -> Result<WeightType, String> {
    match name {
        "f32" => Ok(WeightType::F32),
        "f16" => Ok(WeightType::F16),
        _ => Err("expected f32 or f16".into()),
    }
}

fn winograd(tile: &str) -> Result<Winograd, String> {
    match tile {
        "off" => Ok(Winograd::Off),
        "2" => Ok(Winograd::Tile(2)),
        "4" => Ok(Winograd::Tile(4)),
        "6" => Ok(Winograd::Tile(6)),
        _ => Err("expected off, 2, 4 or 6".into()),
    }
}

fn strassen(when: &str) -> Result<Strassen, String> {
    match when {
        "off" => Ok(Strassen::Off),
        "on" => Ok(Strassen::On),
        _ => Err("expected off or on".into()),
    }
}

fn factor(number: &str) -> Result<f64, String> {
    let factor: Option<f64> = number.parse().ok();
    factor.filter(|factor| *factor >= 0.0).ok_or_else(|| "expected a number from 0 on".into())
}
