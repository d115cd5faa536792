#if BuiltInModels
import LocalTraining
#endif

/// What computes the built-in models' matrix products.
enum MatrixProducts {
    /// For people.
    static var sentence: String {
        #if BuiltInModels
        BLASCore.sentence
        #else
        "no built-in models here: matrix products are the trainer's own"
        #endif
    }

    /// Whether this processor can run the kernels that were chosen for it.
    static var canRun: Bool {
        #if BuiltInModels
        BLASCore.fit != .isBeyond
        #else
        true
        #endif
    }
}
