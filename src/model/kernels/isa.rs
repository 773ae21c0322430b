//! Which instruction set the kernels use, found once at run time.

/// An instruction set that this processor has. Values exist only for sets that were detected, which is what makes
/// calling the `target_feature` kernels sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Plain Rust; the same integer arithmetic as the others.
    Portable,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 (F, BW, DQ, VL) with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Isa {
    /// The fastest set of this processor.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx2() && has_avx512_vnni() {
                return Self(Kind::Avx512Vnni);
            }
            if has_avx2() {
                return Self(Kind::Avx2);
            }
        }
        Self(Kind::Portable)
    }

    /// Every set of this processor, slowest first: for tests and comparisons.
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx2() {
                all.push(Self(Kind::Avx2));
                if has_avx512_vnni() {
                    all.push(Self(Kind::Avx512Vnni));
                }
            }
        }
        all
    }

    /// A short name for logs and benchmarks.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512-vnni",
        }
    }

    pub(super) fn kind(self) -> Kind {
        self.0
    }

    /// Columns of a packed matrix that one vector of the integer kernels holds.
    pub(super) fn group_columns(self) -> usize {
        match self.0 {
            Kind::Portable => 8,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 8,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => 16,
        }
    }

    /// Rows that the matrix kernels compute at once, bounded by the vector registers.
    pub(super) fn tile_rows(self) -> usize {
        match self.0 {
            Kind::Portable => 4,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 4,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => 8,
        }
    }

    /// Query vectors that the attention kernels carry at once.
    pub(super) fn tile_queries(self) -> usize {
        match self.0 {
            Kind::Portable => 3,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 3,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => 8,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512_vnni() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// Defines `$name(isa, args)` that runs the generic `$body::<FMA>` compiled for the instruction set given.
macro_rules! for_each_isa {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::model::kernels::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) {
                $body::<true>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            fn avx512($($arg: $ty),*) {
                $body::<true>($($arg),*)
            }
            match isa.kind() {
                $crate::model::kernels::isa::Kind::Portable => $body::<false>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` of this kind exists only where its features were detected.
                $crate::model::kernels::isa::Kind::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::model::kernels::isa::Kind::Avx512Vnni => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(super) use for_each_isa;
