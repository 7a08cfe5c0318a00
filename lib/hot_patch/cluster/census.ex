defmodule HotPatch.Cluster.Census do
  @moduledoc false
  # What the nodes have answered to the one question with which a call begins: who they are, and what
  # they know of the patches that the call is about. It is passed on, so that nobody asks again.

  alias HotPatch.NodeAgent.History
  alias HotPatch.NodeInfo

  @typedoc "`connected` are those that belong to the system, without those that were only named."
  @type t :: %__MODULE__{
          infos: [NodeInfo.t()],
          patches: [{node(), [History.patch()]}],
          connected: [node()]
        }
  @enforce_keys [:infos, :patches, :connected]
  defstruct [:infos, :patches, :connected]
end
