#ifndef GRAPNEL_OPTIM_AVERAGING_MIXTURE_H_
#define GRAPNEL_OPTIM_AVERAGING_MIXTURE_H_

namespace grapnel {

// How an average takes in new values.
struct Mixture {
  enum class Form {
    kLerp,  // Rounded as at::lerp_: from the nearer end.
    kAdd,   // Rounded as average.add_(source - average, weight).
  };

  // Of the new value. In [0, 1].
  double weight = 0;
  Form form = Form::kLerp;
};

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_AVERAGING_MIXTURE_H_
