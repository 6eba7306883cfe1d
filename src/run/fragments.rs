//! A pool whose stride was removed, straight into the fragments that the stride makes: every block's plane is read
//! once, in bands of rows that stay in the first caches while they are spread out.

use sinew_kernels::pool;

use super::parallel::for_each_block;
use super::pool::{pool_geometry, pool_kind};
use super::step::{Run, image, open};
use crate::graph::Pool;
use crate::plan::step::{Step, View};

impl Run<'_, '_, '_> {
    pub(super) fn pool_fragments(&mut self, step: &Step, pool: &Pool, input: &View, parts: &[View]) {
        let kernels = self.kernels;
        let [down, across] = pool.stride;
        let width: usize = parts[..across].iter().map(|part| part.layout.width).sum();
        let height: usize = parts.iter().step_by(across).map(|part| part.layout.height).sum();
        let geometry = pool_geometry(pool, &input.layout, [height, width], [1, 1]);
        let kind = pool_kind(pool);
        let in_plane = geometry.in_pixels();
        let blocks = input.layout.blocks();
        let scratch = self.scratch(step);
        for index in 0..input.layout.batch {
            let start = image(self.plan, &parts[0], index).start;
            let writes = [start..start + parts[0].batch_stride, scratch.clone()];
            let ([x], [out, scratch]) = open(self.plan, self.arena, index, [Some(input)], writes);
            let planes = parts.iter().map(|part| part.layout.pixels());
            for_each_block(step.cut, out, planes, blocks, scratch, &|block, out, scratch| {
                let input = &x[block * in_plane..][..in_plane];
                let band = scratch.len() / width;
                for first in (0..height).step_by(band) {
                    let rows = first..(first + band).min(height);
                    let pooled = &mut scratch[..rows.len() * width];
                    let args = pool::PoolArgs { geometry, kind, input };
                    (kernels.pool.run)(&args, rows.start * width..rows.end * width, &mut [&mut *pooled]);
                    for (row, pooled) in rows.zip(pooled.chunks(width)) {
                        for column in 0..across {
                            let part = row % down * across + column;
                            let own = parts[part].layout.width;
                            let to = &mut out[part][row / down * own..][..own];
                            for (to, from) in to.iter_mut().zip(pooled[column..].iter().step_by(across)) {
                                *to = *from;
                            }
                        }
                    }
                }
            });
        }
    }
}
