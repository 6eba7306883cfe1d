//! The machine code of the tile kernels, as it is in this very program: a missed inlining or one register too many
//! costs ten times the speed and fails no other test.
//!
//! For each named tile kernel, every innermost loop with at least half of the widest tile's multiply-adds has no call, no
//! stack reference (or as many as it is known to need) and few instructions per multiply-add, and the widest tile is there. `CODEGEN_BINARY` and `OBJDUMP`
//! name another program and its disassembler, for targets that this machine only builds for. Without a disassembler
//! the test says so and passes, unless `REQUIRE_CODEGEN` is set.

#![cfg(not(debug_assertions))]

use std::collections::BTreeMap;
use std::process::Command;

/// A tile kernel, the multiply-adds of one step of its widest tile, and instructions per multiply-add at most.
struct Tile {
    name: &'static str,
    /// Pixels x blocks x registers of a block.
    widest: usize,
    limit: f64,
    /// References to the stack, to numbers that do not change and find no room in registers.
    stack: usize,
}

const X86: [Tile; 13] = [
    Tile { name: "direct_avx2", widest: 6 * 2, limit: 2.5, stack: 0 },
    Tile { name: "pointwise_avx2", widest: 6 * 2, limit: 2.1, stack: 0 },
    Tile { name: "direct_avx512", widest: 14 * 2, limit: 2.5, stack: 0 },
    Tile { name: "dense_avx2", widest: 4 * 2, limit: 1.7, stack: 0 },
    Tile { name: "dense_avx512", widest: 4, limit: 2.3, stack: 0 },
    Tile { name: "winograd_column_avx2", widest: 6 * 2, limit: 2.5, stack: 0 },
    Tile { name: "winograd_column_avx512", widest: 14 * 2, limit: 2.5, stack: 0 },
    // 24 products and 9 of the multiply-adds that transform the weights; both kinds of rows
    Tile { name: "winograd_joined_avx512", widest: 24 + 9, limit: 2.4, stack: 2 },
    Tile { name: "grouped_tile_avx2", widest: 6 * 2, limit: 2.5, stack: 0 },
    Tile { name: "grouped_tile_avx512", widest: 14, limit: 2.5, stack: 0 },
    // One element at a time, broadcast from a plain image for two registers: a tap has 7 loads and its own start.
    Tile { name: "plain_image_avx2", widest: 6 * 2, limit: 2.9, stack: 0 },
    Tile { name: "plain_image_avx512", widest: 14 * 2, limit: 2.5, stack: 0 },
    // 5x5: some of the weights and of what comes behind a sum; with stride 2 two lines a step and a permutation for each tap
    Tile { name: "plain_strip_avx512", widest: 25, limit: 5.0, stack: 24 },
];

const AARCH64: [Tile; 6] = [
    Tile { name: "direct_neon", widest: 6 * 4, limit: 2.5, stack: 0 },
    Tile { name: "pointwise_neon", widest: 6 * 4, limit: 2.1, stack: 0 },
    Tile { name: "dense_neon", widest: 3 * 4, limit: 2.5, stack: 0 },
    Tile { name: "winograd_column_neon", widest: 6 * 4, limit: 2.5, stack: 0 },
    Tile { name: "grouped_tile_neon", widest: 5 * 4, limit: 2.5, stack: 0 },
    Tile { name: "plain_image_neon", widest: 6 * 4, limit: 2.5, stack: 0 },
];

/// One instruction: where, what, and its operands.
struct Instruction {
    address: u64,
    name: String,
    operands: String,
}

impl Instruction {
    fn is_multiply_add(&self) -> bool {
        self.name.starts_with("vfmadd") || self.name == "fmla"
    }

    fn is_call(&self) -> bool {
        ["call", "bl", "blr"].contains(&self.name.as_str())
    }

    /// A spilled register, that is; an array on the stack is read with an index.
    fn is_on_stack(&self) -> bool {
        let spilled = self.operands.contains("[rsp") && !self.operands.contains("*4");
        spilled || self.operands.contains("[sp")
    }

    /// Whether the next instruction never follows.
    fn ends_here(&self) -> bool {
        ["jmp", "ret", "ud2", "b", "br", "udf"].contains(&self.name.as_str())
    }

    /// Where a jump goes.
    fn target(&self) -> Option<u64> {
        let jumps = self.name.starts_with('j')
            || self.name == "b"
            || ["b.", "cb", "tb"].iter().any(|start| self.name.starts_with(start));
        let (before, _) = self.operands.split_once(" <")?;
        let address = before.split([' ', ',']).next_back()?;
        u64::from_str_radix(address, 16).ok().filter(|_| jumps)
    }
}

/// The functions of a disassembly by symbol.
fn functions(listing: &str) -> BTreeMap<&str, Vec<Instruction>> {
    let mut functions: BTreeMap<&str, Vec<Instruction>> = BTreeMap::new();
    let mut symbol = "";
    for line in listing.lines() {
        if let Some(name) = line.split_once(" <").and_then(|(_, name)| name.strip_suffix(">:")) {
            symbol = name;
        } else if let Some((address, rest)) = line.trim_start().split_once(":\t")
            && let Ok(address) = u64::from_str_radix(address, 16)
        {
            let (name, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let (name, operands) = (name.trim().to_owned(), operands.trim().to_owned());
            functions.entry(symbol).or_default().push(Instruction { address, name, operands });
        }
    }
    functions
}

/// Whether the first of these instructions leads to the last one without leaving them: else a jump from the last to the first
/// goes back to where a branch came from, and is no loop.
fn runs_through(code: &[Instruction]) -> bool {
    let at = |address| code.binary_search_by_key(&address, |instruction| instruction.address).ok();
    let mut seen = vec![false; code.len()];
    let mut open = vec![0];
    while let Some(i) = open.pop() {
        if i >= code.len() || std::mem::replace(&mut seen[i], true) {
            continue;
        }
        if !code[i].ends_here() {
            open.push(i + 1);
        }
        open.extend(code[i].target().and_then(at));
    }
    seen[code.len() - 1]
}

/// The loops of a function that hold no other loop.
fn innermost_loops(code: &[Instruction]) -> Vec<&[Instruction]> {
    let at = |address| code.binary_search_by_key(&address, |instruction| instruction.address).ok();
    let back = |(end, instruction): (usize, &Instruction)| {
        let start = at(instruction.target()?)?;
        (start <= end && runs_through(&code[start..=end])).then_some((start, end))
    };
    let loops: Vec<(usize, usize)> = code.iter().enumerate().filter_map(back).collect();
    let holds = |outer: (usize, usize), inner: (usize, usize)| {
        outer != inner && outer.0 <= inner.0 && inner.1 <= outer.1
    };
    let innermost = loops.iter().filter(|&&outer| !loops.iter().any(|&inner| holds(outer, inner)));
    innermost.map(|&(start, end)| &code[start..=end]).collect()
}

#[test]
fn tiles_stay_in_registers() {
    // So that every table is in this program.
    assert!(!sinew_kernels::isa::supported().is_empty());
    let other = std::env::var_os("CODEGEN_BINARY");
    let binary = match &other {
        Some(path) => path.into(),
        None => std::env::current_exe().expect("the path of this program"),
    };
    let objdump = std::env::var("OBJDUMP").unwrap_or("objdump".into());
    let output = Command::new(&objdump)
        .args(["--disassemble", "--no-show-raw-insn", "--disassembler-options=intel"])
        .arg(&binary)
        .output();
    // Disassemblers for Arm know no such option.
    let output = match output {
        Ok(output) if output.status.success() => Ok(output),
        _ => Command::new(&objdump).args(["--disassemble", "--no-show-raw-insn"]).arg(&binary).output(),
    };
    let listing = match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        problem => {
            assert!(std::env::var_os("REQUIRE_CODEGEN").is_none(), "{objdump} does not work: {problem:?}");
            println!("not checked: {objdump} does not work here");
            return;
        }
    };
    let tiles: &[Tile] = if listing.contains("direct_neon") { &AARCH64 } else { &X86 };
    let functions = functions(&listing);
    for tile in tiles {
        let mut widest_found = false;
        let symbol = format!("{}{}17h", tile.name.len(), tile.name);
        for (name, code) in functions.iter().filter(|(name, _)| name.contains(&symbol)) {
            for code in innermost_loops(code) {
                let multiply_adds = code.iter().filter(|instruction| instruction.is_multiply_add()).count();
                if multiply_adds < tile.widest.div_ceil(2) {
                    continue;
                }
                widest_found |= multiply_adds.is_multiple_of(tile.widest);
                let calls = code.iter().filter(|instruction| instruction.is_call()).count();
                let stack = code.iter().filter(|instruction| instruction.is_on_stack()).count();
                let ratio = code.len() as f64 / multiply_adds as f64;
                assert!(calls == 0 && stack <= tile.stack, "{name}: {calls} calls, {stack} stack references");
                // Narrow tiles have more loads per multiply-add.
                let allowed = if multiply_adds < tile.widest { tile.limit * 1.6 } else { tile.limit };
                assert!(
                    ratio <= allowed,
                    "{name}: {} instructions for {multiply_adds} multiply-adds",
                    code.len()
                );
            }
        }
        assert!(widest_found, "{}: no loop of {} multiply-adds", tile.name, tile.widest);
    }
}
