import CKernels

#if OpenBLAS
import CBLAS
#endif

/// Chooses OpenBLAS's kernels once, before the first product.
package enum BLASCore {
    /// The core that OpenBLAS chose by itself, and the core that runs.
    package struct Choice: Sendable {
        /// The library's own choice; `nil` without OpenBLAS.
        package var found: String?
        /// The core that runs; `nil` without OpenBLAS.
        package var core: String?
    }

    /// The choice, made when it is first asked for.
    ///
    /// OpenBLAS runs on the caller's thread only, because clients run in parallel.
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

    /// A sentence for people: the core, who chose it, and what to do if the processor could run a better one.
    package static var sentence: String {
        #if !OpenBLAS
        return "matrix products by Martlet's own kernels"
        #else
        guard let core = choice.core else { return "matrix products by a library that is not OpenBLAS" }
        if choice.found != core {
            return
                "matrix products by OpenBLAS's core \(core), set for this processor; OpenBLAS chose \(choice.found ?? "none")"
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

    /// How a core's kernels fit a processor.
    package enum Fit: Equatable, Sendable {
        case fits
        /// The kernels use registers of SSE only, and the processor has AVX2.
        case isSlow
        /// The kernels use registers that the processor does not have.
        case isBeyond

        /// Compares a core with the widest one that the processor can run, `nil` if that is not known.
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

    /// How the running core fits this processor.
    package static var fit: Fit { choice.core.map { Fit(core: $0, best: bestCore) } ?? .fits }

    /// The widest core that the processor can run.
    package static var bestCore: String? { martlet_blas_best_core().map { String(cString: $0) } }

    /// Switches to the named core's kernels, for measurements.
    ///
    /// No other thread may use OpenBLAS at that time.
    ///
    /// - Parameter name: A core, or `nil` for OpenBLAS's own choice.
    /// - Returns: The core that runs now; another one if the build has none of that name.
    package static func use(_ name: String?) -> String? {
        _ = choice
        let core = name.map { name in name.withCString { martlet_set_blas_core($0) } } ?? martlet_set_blas_core(nil)
        runOnCallersThread()
        return core.map { String(cString: $0) }
    }

    /// Makes the choice again, as before the first product.
    package static func chooseAgain() -> String? {
        _ = martlet_choose_blas_core()
        runOnCallersThread()
        return martlet_blas_core().map { String(cString: $0) }
    }
}
