// Every number that comes from a file, a flag or a request is held against a bound named here. docs/limits.md
// lists them with their errors and tests.
#pragma once
#include <cstdint>

namespace fathom::limits {

inline constexpr int64_t kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB;

// JSON files (configuration, tokenizer.json, manifests, requests)
inline constexpr int64_t kJsonBytes = 512 * kMiB;
inline constexpr int64_t kConfigBytes = 4 * kMiB;
inline constexpr int kJsonDepth = 64;
inline constexpr int64_t kJsonValues = 1 << 23;

// safetensors
inline constexpr int64_t kSafetensorsHeaderBytes = 100 * 1000 * 1000;  // the format's own cap
inline constexpr int64_t kTensorCount = 1 << 20;
inline constexpr int kTensorRank = 8;
inline constexpr int64_t kTensorNameBytes = 1024;
inline constexpr int64_t kTensorMetadataEntries = 4096;
inline constexpr int64_t kTensorMetadataBytes = 16 * kMiB;  // all keys and values of __metadata__
inline constexpr int64_t kTensorShards = 4096;              // files that one index names

// GGUF
inline constexpr int64_t kGgufMetadataEntries = 1 << 16;
inline constexpr int64_t kGgufKeyBytes = 65535;             // the format's own cap
inline constexpr int64_t kGgufStringBytes = 64 * kMiB;      // one string, such as a chat template
inline constexpr int64_t kGgufArrayElements = 1 << 24;      // one array, such as the tokens of a vocabulary
inline constexpr int64_t kGgufTensors = 1 << 16;
inline constexpr int kGgufRank = 4;                         // the format's own cap
inline constexpr int64_t kGgufAlignment = 64 * kKiB;        // of tensors, from 8

// Model shape
inline constexpr int64_t kBlocks = 1024;            // L
inline constexpr int64_t kWidth = 1 << 17;          // C, and the rank of a light path
inline constexpr int64_t kFeedForwardWidth = 1 << 20;  // F
inline constexpr int64_t kHeads = 4096;             // H
inline constexpr int64_t kHeadWidth = 1024;         // D
inline constexpr int64_t kVocabulary = 1 << 24;     // V
inline constexpr int64_t kContext = 1 << 24;        // max_position_embeddings
inline constexpr int64_t kParameters = int64_t{1} << 42;
inline constexpr int64_t kEosTokens = 256;          // ids in eos_token_id
inline constexpr double kRmsNormEpsLow = 1e-12, kRmsNormEpsHigh = 0.1;
inline constexpr double kRopeTheta = 1e12;          // from 1
inline constexpr double kRopeFactorLow = 0.0009765625, kRopeFactorHigh = 1e6;  // numbers of scaled positions; f32 holds both
inline constexpr double kGateScale = 100;           // from 0
inline constexpr int64_t kDialPoints = 1024;        // of a fathom_dial.json
inline constexpr double kLoss = 1e9;               // nats per token
inline constexpr double kMeasured = 1e18;         // tokens per second, bytes and ratios of a fathom_curve.json
inline constexpr double kBlockFraction = 1e6;       // routers of a tiny model may cost more than its blocks

// Tokenizer
inline constexpr int64_t kTokenBytes = 64 * kKiB;    // one vocabulary entry
inline constexpr int64_t kPieceBytes = 1 * kKiB;      // of a SentencePiece vocabulary without merges
inline constexpr int64_t kMerges = 1 << 22;           // half of kJsonValues, or a list of them could not be read
inline constexpr int64_t kAddedTokens = 1 << 20;
inline constexpr int64_t kAddedTokenBytes = 4 * kKiB;
inline constexpr int64_t kPatternBytes = 16 * kKiB;   // one regular expression
inline constexpr int64_t kTokenizerStages = 64;       // normalizers, pre-tokenizers, … in one Sequence
inline constexpr int64_t kTemplateTokens = 1024;      // special tokens around a text
inline constexpr int64_t kWordBytes = 64 * kMiB;      // between two cuts of the pre-tokenizer

// Chat templates
inline constexpr int64_t kChatTemplateBytes = 256 * kKiB;
inline constexpr int kChatTemplateDepth = 128;        // blocks, brackets, operators, values
inline constexpr int64_t kChatTemplateSteps = 1 << 24;  // of one rendering; 16 bytes of text cost one too
inline constexpr int64_t kChatBytes = 64 * kMiB;      // the rendered conversation, and any text on the way

// Text and token shards
inline constexpr int64_t kDocumentBytes = 1 * kGiB;  // one text given to the tokenizer
inline constexpr int64_t kLineBytes = 1 * kGiB;      // one line of a .jsonl
inline constexpr int64_t kShardTokens = int64_t{1} << 36;
inline constexpr int64_t kShards = 1 << 20;
inline constexpr int64_t kShardOption = int64_t{1} << 30;  // tokens that prepare gathers in memory for a shard
inline constexpr int64_t kShardDocuments = int64_t{1} << 32;
inline constexpr int64_t kSourceFiles = 1 << 24;     // files of a corpus
inline constexpr int64_t kManifestSources = 4096;    // listed one by one in a manifest
inline constexpr int64_t kManifestBytes = 256 * kMiB;
inline constexpr int kZstdWindowLog = 27;            // 128 MiB: the memory that a .zst file may ask for

// Training
inline constexpr int64_t kBatch = 1 << 20;           // sequences in a step
inline constexpr int64_t kSequenceLength = 1 << 20;  // T of a training row
inline constexpr int64_t kSteps = int64_t{1} << 40;
inline constexpr int64_t kTrainTokens = int64_t{1} << 50;
inline constexpr double kTrainFlops = 1e30;
inline constexpr double kLearningRate = 1e3;         // above 0
inline constexpr double kLossWeight = 1e6;           // from 0
inline constexpr double kRouterNoise = 1e3;          // from 0
inline constexpr int64_t kCheckpointsKept = 1 << 20;
inline constexpr double kIntervalSeconds = 1e9;
inline constexpr int64_t kMetricsBytes = 4 * kGiB;   // of a metrics.jsonl that a resume reads

// Generation
inline constexpr int64_t kPromptBytes = 64 * kMiB;
inline constexpr int64_t kNewTokens = 1 << 24;
inline constexpr int kStopStrings = 64;
inline constexpr int64_t kStopBytes = 4096;
inline constexpr double kTemperature = 100;
inline constexpr double kRepetitionPenaltyLow = 0.01, kRepetitionPenaltyHigh = 100;
inline constexpr double kPenalty = 100;              // presence and frequency, either sign
inline constexpr int64_t kLogitBiases = 4096;
inline constexpr int64_t kTopLogProbs = 128;         // of one token
inline constexpr int64_t kGuesses = 64;              // of one speculation
inline constexpr int64_t kTexts = 4096;              // that one engine runs at once
inline constexpr int64_t kStepRows = 1 << 16;        // tokens that one step reads
inline constexpr int kPriority = 100;                // of a request, either sign: one that waits rises past any in some fifty thousand steps
inline constexpr double kTimeout = 1e9;              // seconds
inline constexpr int kThreads = 1024;
inline constexpr int64_t kKvMemory = int64_t{1} << 50;  // bytes of --kv-memory
inline constexpr int64_t kPrefixTokens = int64_t{1} << 40;  // that the prefix cache keeps
inline constexpr int64_t kCacheHeaderBytes = 256 * kMiB;  // of a saved cache: what a conversation said, and more

// Evaluation
inline constexpr int64_t kEvaluationTokens = int64_t{1} << 28;  // held-out tokens kept in memory at once
inline constexpr int64_t kTaskBytes = 64 * kMiB;       // of a task file, unpacked
inline constexpr int64_t kTaskChoices = 1024;          // of one item
inline constexpr int64_t kTaskResultsBytes = 1 * kGiB;     // of the results that an interrupted evaluation left

}  // namespace fathom::limits
