import CKernels

#if OpenBLAS
import CBLAS
#endif

/// Which of OpenBLAS's kernels run, chosen once before the first product.
package enum BLASCore {
    /// What OpenBLAS chose by itself, and what runs.
    package struct Choice: Sendable {
        /// The library's own choice; `nil` without OpenBLAS.
        package var found: String?
        /// What runs.
        package var core: String?
    }

    /// The choice, made when it is first asked for.
    ///
    /// Clients are what runs in parallel, so OpenBLAS runs on the caller's thread only.
    package static let choice: Choice = {
        let found = martlet_blas_core().map { String(cString: $0) }
        _ = martlet_choose_blas_core()
        runOnCallersThread()
        return Choice(found: found, core: martlet_blas_core().map { String(cString: $0) })
    }()

    private static func runOnCallersThread() {
        #if OpenBLAS
        openblas_set_num_threads(1)
        #endif
    }

    /// For people: the core, who chose it, and what to do where the processor could do more.
    package static var sentence: String {
        #if !OpenBLAS
        return "matrix products by Martlet's own kernels"
        #else
        guard let core = choice.core else { return "matrix products by a library that is not OpenBLAS" }
        if choice.found != core {
            return
                "matrix products by OpenBLAS's core \(core), for what the processor can do; OpenBLAS chose \(choice.found ?? "none")"
        }
        return switch fit {
        case .fits: "matrix products by OpenBLAS's core \(core)"
        case .isSlow:
            "matrix products by OpenBLAS's core \(core), where the processor can run \(bestCore ?? core): "
                + "unset OPENBLAS_CORETYPE, or install OpenBLAS 0.3.25 or newer"
        case .isBeyond:
            "matrix products by OpenBLAS's core \(core), which this processor cannot run: training would end with an illegal "
                + "instruction; unset OPENBLAS_CORETYPE"
        }
        #endif
    }

    /// How a core's kernels go with a processor.
    package enum Fit: Equatable, Sendable {
        case fits
        /// They use no wider registers than SSE's, and the processor has AVX2.
        case isSlow
        /// They use registers that the processor has not.
        case isBeyond

        /// Judges a core by the widest one that the processor can run, `nil` where that is not known.
        package init(core: String, best: String?) {
            let is512 = ["SkylakeX", "Cooperlake", "SapphireRapids"].contains(core)
            if is512 && best == "Haswell" {
                self = .isBeyond
            } else if best != nil, ["Prescott", "Core2", "Penryn", "Dunnington", "Nehalem", "Atom"].contains(core) {
                self = .isSlow
            } else {
                self = .fits
            }
        }
    }

    /// How the core that runs goes with this processor.
    package static var fit: Fit { choice.core.map { Fit(core: $0, best: bestCore) } ?? .fits }

    /// The widest core that the processor can run.
    package static var bestCore: String? { martlet_blas_best_core().map { String(cString: $0) } }

    /// Runs the named core's kernels from now on, for measurements; no other thread may use OpenBLAS meanwhile.
    ///
    /// - Parameter name: A core, or `nil` for OpenBLAS's own choice.
    /// - Returns: The core that runs now: another one where the build has none of that name.
    package static func use(_ name: String?) -> String? {
        _ = choice
        let core = name.map { name in name.withCString { martlet_set_blas_core($0) } } ?? martlet_set_blas_core(nil)
        runOnCallersThread()
        return core.map { String(cString: $0) }
    }

    /// Chooses again, as before the first product.
    package static func chooseAgain() -> String? {
        _ = martlet_choose_blas_core()
        runOnCallersThread()
        return martlet_blas_core().map { String(cString: $0) }
    }
}
