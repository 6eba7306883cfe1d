//! Small gray images as text: two rows of pixels to one line, since a character is about twice as high as wide.

/// Shades from dark to light.
const SHADES: &[u8; 10] = b" .:-=+*#%@";

/// The lines of an image of `width` pixels a row: half blocks in shades of gray, or plain characters.
pub(super) fn lines(pixels: &[u8], width: usize, colored: bool) -> Vec<String> {
    let pairs = pixels.chunks(2 * width);
    pairs.map(|pair| if colored { half_blocks(pair, width) } else { characters(pair, width) }).collect()
}

fn below(pair: &[u8], at: usize, width: usize) -> u8 {
    pair.get(width + at).copied().unwrap_or(0)
}

fn half_blocks(pair: &[u8], width: usize) -> String {
    // 24 grays of the 256-colour palette, 232 the darkest.
    let gray = |pixel: u8| 232 + u16::from(pixel) * 23 / 255;
    let blocks = (0..width)
        .map(|at| format!("\x1b[38;5;{}m\x1b[48;5;{}m▀", gray(pair[at]), gray(below(pair, at, width))));
    blocks.chain(["\x1b[0m".to_owned()]).collect()
}

fn characters(pair: &[u8], width: usize) -> String {
    let shade = |at: usize| {
        let mean = (usize::from(pair[at]) + usize::from(below(pair, at, width))) / 2;
        char::from(SHADES[mean * (SHADES.len() - 1) / 255])
    };
    (0..width).map(shade).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rows_are_one_line() {
        assert_eq!(lines(&[0, 255, 0, 255, 128, 128], 2, false), [" @", "--"]);
        let colored = lines(&[0, 255, 255, 0], 2, true);
        assert_eq!(colored, ["\x1b[38;5;232m\x1b[48;5;255m▀\x1b[38;5;255m\x1b[48;5;232m▀\x1b[0m"]);
    }
}
